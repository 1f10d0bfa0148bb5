"""The manifest of a checkpoint: size and SHA-256 of each of its files, and facts about it (its step and the like).

Whoever writes a checkpoint writes manifest.json last. Whoever reads one compares its files with it first, so that a
flipped bit, a cut or a missing file is found before a tensor of it is used.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from conf.machine import usable_cores

MANIFEST = "manifest.json"
PIECE = 4 << 20
"""Bytes that are hashed at a time."""


@dataclass(frozen=True)
class FileSum:
    """What a file must be."""

    bytes: int
    sha256: str


class Problem(NamedTuple):
    """Why a file of a checkpoint cannot be used."""

    file: str
    damaged: bool
    """Whether its content is wrong; else it cannot be read (permissions, a broken disk), and may well be good."""
    what: str


@dataclass(frozen=True)
class Manifest:
    """The files of a checkpoint, by name, and facts about it, as JSON holds them."""

    files: Mapping[str, FileSum]
    facts: Mapping[str, Any]

    def n_bytes(self) -> int:
        """The size of all files together."""
        return sum(file.bytes for file in self.files.values())


def sums(folder: Path, names: Iterable[str], done: Callable[[int], object] = lambda n: None) -> dict[str, FileSum]:
    """Size and SHA-256 of files in a folder, hashed in threads. `done` gets the bytes of each piece. Raises OSError."""
    names = list(names)
    with ThreadPoolExecutor(_threads()) as pool:
        return dict(zip(names, pool.map(lambda name: _sum(folder / name, done), names), strict=True))


def _sum(path: Path, done: Callable[[int], object]) -> FileSum:
    sha256, n_bytes = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as stream:
        while piece := stream.read(PIECE):
            sha256.update(piece)
            n_bytes += len(piece)
            done(len(piece))
    return FileSum(n_bytes, sha256.hexdigest())


def _threads() -> int:
    """Hashing is arithmetic that releases Python's lock: as many threads as cores, but not hundreds of open files."""
    return min(16, usable_cores())


def write_manifest(folder: Path, files: Mapping[str, FileSum], facts: Mapping[str, Any]) -> None:
    """Write manifest.json: on the disk, whole, or not there at all. Raises OSError."""
    body = {"facts": {**facts, "written": time.strftime("%Y-%m-%dT%H:%M:%S%z")}}
    body["files"] = {name: asdict(files[name]) for name in sorted(files)}
    partial = folder / f"{MANIFEST}.partial"
    with partial.open("w") as stream:
        json.dump({"sha256": _digest(body), **body}, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(folder / MANIFEST)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def read_manifest(folder: Path) -> Manifest | Problem | None:
    """The manifest of a checkpoint; None if it has none."""
    try:
        content = json.loads((folder / MANIFEST).read_bytes())
        if content.pop("sha256") != _digest(content):
            return Problem(MANIFEST, True, "its content differs from its SHA-256")
        files = {name: FileSum(**file) for name, file in content["files"].items()}
        return Manifest(files, content["facts"])
    except FileNotFoundError:
        return None
    except OSError as error:
        return unusable(MANIFEST, error)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Problem(MANIFEST, True, "it is not the JSON that was written")


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def unusable(name: str, error: OSError) -> Problem:
    """What an error of opening or reading a file says about it: a file that is gone is damage, all else may pass."""
    gone = isinstance(error, FileNotFoundError)
    return Problem(name, gone, "it is missing" if gone else error.strerror or str(error))


def problems(
    folder: Path, files: Mapping[str, FileSum], done: Callable[[int], object] = lambda n: None
) -> list[Problem]:
    """What is wrong with these files of a folder. Hashes a file only if its size is right."""

    def problem(name: str) -> Problem | None:
        path, expected = folder / name, files[name]
        try:
            if (size := path.stat().st_size) != expected.bytes:
                return Problem(name, True, f"it has {size:,} bytes and should have {expected.bytes:,}")
            if _sum(path, done) != expected:
                return Problem(name, True, "its content differs from the SHA-256 in manifest.json")
        except OSError as error:
            return unusable(name, error)
        return None

    with ThreadPoolExecutor(_threads()) as pool:
        return [found for found in pool.map(problem, files) if found]


def add_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the manifest of a checkpoint that this process alone has written."""
    names = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
    write_manifest(folder, sums(folder, names), facts)
