"""A source as a fixed sequence of chunks: about half a megabyte of raw text, cheap to make and to send to a process.

The sequence depends on the files alone. So work can be resumed at a chunk's number, and comes out the same on any
number of processes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from conf.errors import reason
from data.config import DataError, SourceConfig
from data.sources.compressed import UNREADABLE, opened
from data.sources.documents import Bad, Document, document_of, fields
from data.sources.records import decoded, line_records, parquet_records, tsv_columns
from data.sources.source_files import COMPRESSED, LINES, PARQUET, find_files, kind

CHUNK_BYTES = 1 << 19


class Chunk(Protocol):
    """A piece of a source."""

    n_source_bytes: int
    """How many of the source's bytes on disk this chunk covers."""

    def documents(self, source: SourceConfig) -> Iterator[Document | Bad]:
        """Its documents in order, with empty texts, and what could not be read in between."""
        ...


@dataclass
class WholeFiles:
    """Files that are a document each."""

    files: list[tuple[str, Path]] = field(default_factory=list)
    """(name, path)."""
    n_source_bytes: int = 0

    def documents(self, source: SourceConfig) -> Iterator[Document | Bad]:
        """One a file."""
        for name, path in self.files:
            try:
                with opened(path) as stream:
                    text = decoded(stream.read(), str(path))
            except UNREADABLE as error:
                text = Bad(f"{path}: cannot be read, or is cut off ({reason(error)})")
            yield text if isinstance(text, Bad) else Document(name, text)


@dataclass
class Lines:
    """Lines of a .jsonl or .tsv file."""

    name: str
    path: Path
    first_line: int
    raw: bytes | tuple[int, int]
    """The lines; of a file that is not compressed where they begin and how long they are: cheaper to send."""
    columns: list[str] | None
    n_source_bytes: int

    def documents(self, source: SourceConfig) -> Iterator[Document | Bad]:
        """One a line; blank lines are none."""
        for line, record in line_records(self._lines(), self.path, self.first_line, self.columns):
            if isinstance(record, Bad):
                yield record
            else:
                yield document_of(record, source, f"{self.name}:{line}", f"{self.path}:{line}")

    def _lines(self) -> bytes:
        if isinstance(self.raw, bytes):
            return self.raw
        with self.path.open("rb") as stream:
            stream.seek(self.raw[0])
            return stream.read(self.raw[1])


@dataclass
class RowGroup:
    """A row group of a Parquet file."""

    name: str
    path: Path
    group: int
    first_row: int
    n_source_bytes: int

    def documents(self, source: SourceConfig) -> Iterator[Document | Bad]:
        """One a row, counted from 1."""
        try:
            for row, record in enumerate(parquet_records(self.path, self.group, fields(source)), self.first_row):
                yield document_of(record, source, f"{self.name}:{row}", f"{self.path}:{row}")
        except UNREADABLE as error:
            yield Bad(f"{self.path}: row group {self.group} cannot be read ({reason(error)})")


@dataclass
class Records:
    """Records in memory, from a data set of the hub."""

    name: str
    first: int
    records: list[dict[str, Any]]
    n_source_bytes: int = 0

    def documents(self, source: SourceConfig) -> Iterator[Document | Bad]:
        """One a record, counted from 1."""
        for row, record in enumerate(self.records, self.first):
            yield document_of(record, source, f"{self.name}:{row}", f"{self.name}:{row}")


@dataclass
class Unreadable:
    """A file, or the rest of one, that cannot be read."""

    message: str
    n_source_bytes: int = 0

    def documents(self, source: SourceConfig) -> Iterator[Document | Bad]:
        """Its one message."""
        yield Bad(self.message)


def file_chunks(source: SourceConfig) -> Iterator[Chunk]:
    """The chunks of a source of files. Raises DataError when no file is there."""
    root, files = find_files(source.path)
    texts = WholeFiles()
    for path in files:
        name = path.relative_to(root).as_posix()
        suffix = kind(path)
        if texts.files and (suffix in LINES + PARQUET or texts.n_source_bytes >= CHUNK_BYTES):
            yield texts
            texts = WholeFiles()
        if suffix in LINES:
            yield from _lines(name, path, source)
        elif suffix in PARQUET:
            yield from _row_groups(name, path, source)
        else:
            texts.files.append((name, path))
            texts.n_source_bytes += path.stat().st_size
    if texts.files:
        yield texts


def _lines(name: str, path: Path, source: SourceConfig) -> Iterator[Chunk]:
    columns: list[str] | None = None
    compressed = path.suffix in COMPRESSED
    line, n_reported, begin = 1, 0, 0
    rest: list[bytes] = []
    try:
        with path.open("rb") as on_disc, opened(path, on_disc) as stream:
            if kind(path) == ".tsv":
                columns = tsv_columns(stream.readline(), path)
                line, begin = 2, on_disc.tell()
            while block := stream.read(CHUNK_BYTES):
                end = block.rfind(b"\n") + 1
                if not end:
                    rest.append(block)
                    continue
                raw, rest = b"".join([*rest, block[:end]]), [block[end:]] if end < len(block) else []
                at = on_disc.tell()
                yield Lines(name, path, line, raw if compressed else (begin, len(raw)), columns, at - n_reported)
                line, n_reported, begin = line + raw.count(b"\n"), at, begin + len(raw)
    except DataError as error:
        yield Unreadable(str(error))
        return
    except UNREADABLE as error:
        yield Unreadable(f"{path}:{line}: cannot be read from here on, or is cut off ({reason(error)})")
        return
    if rest:
        yield Lines(name, path, line, b"".join(rest), columns, path.stat().st_size - n_reported)
    elif line == 1:
        yield Unreadable(f"{path}:1: the file is empty")


def _row_groups(name: str, path: Path, source: SourceConfig) -> Iterator[Chunk]:
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    except UNREADABLE as error:
        yield Unreadable(f"{path}: not a Parquet file, or cut off ({reason(error)})")
        return
    if missing := [f for f in fields(source) if f not in names]:
        yield Unreadable(f"{path}: no column {', '.join(missing)}; columns: {', '.join(names)}")
    elif not sum(rows):
        yield Unreadable(f"{path}: the file is empty")
    else:
        size = path.stat().st_size
        for group, n_rows in enumerate(rows):
            yield RowGroup(name, path, group, 1 + sum(rows[:group]), size * n_rows // sum(rows))
