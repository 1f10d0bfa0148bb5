"""A C file, compiled for the CPU that it runs on and loaded: once for each machine, kept for the next process.

Nothing of torch is compiled with it, so that this takes seconds. The threads are those of torch's own OpenMP, whose
functions are found when the library is loaded: a second pool of threads would wait for the first one.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from conf.machine import cache_folder, said_of_cpu

CACHE = cache_folder("kernels")
FLAGS = ["-O3", "-march=native", "-ffp-contract=fast", "-fopenmp", "-fPIC"]


class NoLibraryError(Exception):
    """Why there is none, in a few words."""


def c_library(source: Path) -> ctypes.CDLL:
    """Load what has been compiled from a C file, and compile it if nothing has. Raises NoLibraryError."""
    words = [*(file.read_bytes() for file in _read(source)), " ".join(FLAGS).encode(), _cpu().encode()]
    name = f"{source.stem}-{hashlib.sha256(b'|'.join(words)).hexdigest()[:16]}.so"
    try:
        return ctypes.CDLL(str(CACHE / name))
    except OSError:  # not there, or broken
        pass
    with _scratch() as scratch:
        made = _compile(source, Path(scratch))
        try:
            library = ctypes.CDLL(str(made))
        except OSError as error:
            raise NoLibraryError(str(error)) from None
        with suppress(OSError):  # a cache that cannot be written: it is compiled again next time
            os.replace(made, CACHE / name)  # several processes may do so at the same time
        return library


def _read(source: Path) -> list[Path]:
    """The file and what it may include."""
    return sorted({source, *source.parent.glob("*.[ch]")})


def _scratch() -> tempfile.TemporaryDirectory[str]:
    """Beside what is kept, so that it is renamed into place; elsewhere if nothing can be kept."""
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=CACHE)
    except OSError:
        return tempfile.TemporaryDirectory()


def _compile(source: Path, folder: Path) -> Path:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        raise NoLibraryError("no C compiler is installed (apt-get install gcc)")
    parts = [str(folder / name) for name in ("part.o", "whole.so")]
    for arguments in ([*FLAGS, "-c", str(source), "-o", parts[0]], ["-shared", parts[0], "-o", parts[1]]):
        try:
            done = subprocess.run([*compiler.split(), *arguments], capture_output=True, text=True, check=False)
        except OSError as error:
            raise NoLibraryError(f"{compiler} cannot be run ({error.strerror})") from None
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise NoLibraryError(f"{compiler} cannot compile {source.name} ({said[0]})")
    return Path(parts[1])


def _cpu() -> str:
    """What `-march=native` looks at, so that machines of several kinds may share a cache."""
    described = said_of_cpu("flags", "Features", "model name")
    return " ".join(described) or f"{platform.machine()} {platform.processor()}"
