"""Which files a source names, in a fixed order."""

import glob
import importlib.util
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from conf.hub import HUB
from conf.plugins import is_plugin
from data.config import DataError

STDLIB = "stdlib"
PACKAGE = "site-packages:"
TEXT = (".txt", ".md", ".py")
LINES = (".jsonl", ".tsv")
PARQUET = (".parquet",)
COMPRESSED = (".gz", ".zst")
SUFFIXES = (*TEXT, *LINES, *PARQUET)
# Tests repeat themselves, encodings and pydoc_data are tables, and site-packages belongs to the user.
LEFT_OUT = {"test", "tests", "testing", "idle_test", "encodings", "pydoc_data", "idlelib"}
LEFT_OUT |= {"site-packages", "dist-packages"}


def has_files(path: str) -> bool:
    """Whether a source is files of this machine, rather than of the hub or what a function of the user's gives."""
    return not path.startswith(HUB) and not is_plugin(path)


def kind(file: Path) -> str:
    """The suffix that says what a file holds, whether compressed or not; "" for a file that no source reads."""
    compressed = file.suffix in COMPRESSED
    suffix = Path(file.stem).suffix if compressed else file.suffix
    return suffix if suffix in SUFFIXES and not (compressed and suffix in PARQUET) else ""


def find_files(path: str) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the files of a source, ordered by name.

    Raises DataError when nothing is there.
    """
    if path == STDLIB or path.startswith(PACKAGE):
        root = Path(sysconfig.get_paths()["stdlib"]) if path == STDLIB else _package(path)
        files = list(_modules(root))
    elif (place := Path(path).expanduser()).is_dir():
        root = place
        files = [f for f in place.rglob("*") if kind(f) and f.is_file()]
    else:
        files = [f for f in map(Path, glob.glob(str(place), recursive=True)) if f.is_file()]
        root = _common_folder(files)
        for file in files:
            if not kind(file):
                raise DataError(f"{file}: not one of {_known()}")
    if not files:
        raise DataError(f"{path}: no {_known()} file there (give a file, folder or glob)")
    return root, sorted(files, key=lambda f: f.relative_to(root).as_posix())


def _package(path: str) -> Path:
    """The folder of an installed package, which is not imported."""
    name = path.removeprefix(PACKAGE)
    found = importlib.util.find_spec(name) if name.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise DataError(f"{path}: no package of that name is installed here")
    return Path(found.submodule_search_locations[0])


def _modules(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if f not in LEFT_OUT]  # not walked through: site-packages is large
        yield from (Path(folder, name) for name in names if name.endswith(".py"))


def _known() -> str:
    return f"{', '.join(TEXT + LINES)} (each also {' or '.join(COMPRESSED)}) or {PARQUET[0]}"


def _common_folder(files: list[Path]) -> Path:
    parents = [set(f.parents) for f in files]
    return max(set.intersection(*parents), key=lambda p: len(p.parts)) if parents else Path(".")
