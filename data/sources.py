"""Documents from files: Python's standard library, or any file, folder or glob of .txt, .md, .py or .jsonl."""

import glob
import json
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data.config import DataError

SUFFIXES = (".txt", ".md", ".py", ".jsonl")
STDLIB = "stdlib"
# Tests repeat themselves, encodings and pydoc_data are tables, and site-packages belongs to the user.
STDLIB_LEFT_OUT = {"test", "tests", "idle_test", "encodings", "pydoc_data", "idlelib", "site-packages", "dist-packages"}


@dataclass(frozen=True)
class Document:
    """One text, and a name that stays the same wherever the corpus lies."""

    name: str
    """Path relative to the corpus, with the line number for a .jsonl record."""
    text: str


def find_files(source: str) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the files of a source in a fixed order.

    Raises DataError when nothing is there.
    """
    if source == STDLIB:
        root = Path(sysconfig.get_paths()["stdlib"])
        files = [f for f in root.rglob("*.py") if not STDLIB_LEFT_OUT & set(f.relative_to(root).parts)]
    elif (path := Path(source).expanduser()).is_dir():
        root = path
        files = [f for f in path.rglob("*") if f.suffix in SUFFIXES and f.is_file()]
    else:
        files = [Path(f) for f in glob.glob(str(path), recursive=True) if Path(f).is_file()]
        root = _common_folder(files)
        for file in files:
            if file.suffix not in SUFFIXES:
                raise DataError(f"data.source={source}: {file} is not one of {', '.join(SUFFIXES)}")
    if not files:
        raise DataError(f"data.source={source}: no {', '.join(SUFFIXES)} file there (give a file, folder or glob)")
    return root, sorted(files, key=lambda f: f.relative_to(root).as_posix())


def _common_folder(files: list[Path]) -> Path:
    parents = [set(f.parents) for f in files]
    return max(set.intersection(*parents), key=lambda p: len(p.parts)) if parents else Path(".")


def read_documents(source: str, text_field: str = "text") -> Iterator[Document]:
    """Every non-empty document of a source, in a fixed order, its text unchanged.

    Raises DataError, naming file and line, for bytes that are not UTF-8, broken JSON or a missing field.
    """
    root, files = find_files(source)
    for file in files:
        name = file.relative_to(root).as_posix()
        if file.suffix == ".jsonl":
            yield from _read_jsonl(file, name, text_field)
        elif text := _decode(file, file.read_bytes()):
            yield Document(name, text)


def _decode(file: Path, raw: bytes, line: int | None = None) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1 if line is None else line
        raise DataError(f"{file}:{line}: not UTF-8 (byte 0x{raw[error.start]:02x}); convert the file") from None


def _read_jsonl(file: Path, name: str, text_field: str) -> Iterator[Document]:
    with file.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            line = _decode(file, raw, number)
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{file}:{number}: broken JSON ({error.msg})") from None
            text = record.get(text_field) if isinstance(record, dict) else None
            if not isinstance(text, str):
                fields = f"; fields: {', '.join(record)}" if isinstance(record, dict) else ""
                raise DataError(f"{file}:{number}: no text in field '{text_field}' (data.text_field){fields}")
            if text:
                yield Document(f"{name}:{number}", text)
