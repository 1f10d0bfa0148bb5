"""The records of a data set with the fields that are asked for, each with the place it stands at."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import reason
from conf.hub import HUB
from data.config import DataError, SourceConfig
from data.sources.compressed import UNREADABLE, opened
from data.sources.documents import Bad
from data.sources.hub import open_stream, records
from data.sources.records import line_records, parquet_records, tsv_columns
from data.sources.source_files import LINES, PARQUET, find_files, kind


@dataclass(frozen=True)
class SourceRow:
    """One record."""

    where: str
    """File and line, counted from 1; of a hub's data set its name and the row."""
    values: Mapping[str, Any]


def read_rows(source: SourceConfig, required: Sequence[str]) -> Iterator[SourceRow]:
    """The records of a .jsonl, .tsv (each also .gz or .zst) or .parquet file, a folder or glob of them, or of the hub.

    Args:
        source: its path; for hf:// also subset, split and revision.
        required: fields that every record must have, with text in them.

    Raises DataError, naming file and line, for what cannot be read, lacks a field, or is empty.
    """
    found = _hub_rows(source, required) if source.path.startswith(HUB) else _file_rows(source.path, required)
    for where, record in found:
        if isinstance(record, Bad):
            raise DataError(record.message)
        if not isinstance(record, Mapping):
            raise DataError(f"{where}: not an object with the fields {', '.join(required)}")
        for field in required:
            if not isinstance(record.get(field), str):
                what = "no text in field" if field in record else "no field"
                raise DataError(f"{where}: {what} '{field}'; fields: {', '.join(map(str, record))}")
        yield SourceRow(where, record)


def _hub_rows(source: SourceConfig, required: Sequence[str]) -> Iterator[tuple[str, Any]]:
    stream = open_stream(source, columns=required)
    n_read = 0
    try:
        for n_read, record in enumerate(records(stream), 1):
            yield f"{source.path}[{source.split}]:{n_read}", record
    except Exception as error:  # `datasets` and what it stands on raise many kinds
        raise DataError(f"{source.path}, after row {n_read}: cannot be read ({reason(error)})") from None


def _file_rows(path: str, required: Sequence[str]) -> Iterator[tuple[str, Any]]:
    _, files = find_files(path)
    for file in files:
        if kind(file) not in LINES + PARQUET:
            raise DataError(f"{path}: {file} is not one of {', '.join(LINES + PARQUET)}, which have fields")
        n_rows = 0
        try:
            for line, record in _parquet(file, required) if kind(file) in PARQUET else _lines(file):
                n_rows += 1
                yield f"{file}:{line}", record
        except UNREADABLE as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{file}: cannot be read, or is cut off ({reason(error)})") from None
        if not n_rows:
            raise DataError(f"{file}: the file is empty")


def _lines(file: Path) -> Iterator[tuple[int, Any]]:
    with opened(file) as stream:
        columns = tsv_columns(stream.readline(), file) if kind(file) == ".tsv" else None
        for line, raw in enumerate(stream, 2 if columns else 1):
            yield from line_records(raw.removesuffix(b"\n"), file, line, columns)


def _parquet(file: Path, required: Sequence[str]) -> Iterator[tuple[int, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened_file:
        names, groups = opened_file.schema_arrow.names, opened_file.num_row_groups
    if missing := [f for f in required if f not in names]:
        raise DataError(f"{file}: no column {', '.join(missing)}; columns: {', '.join(names)}")
    row = 0
    for group in range(groups):
        for record in parquet_records(file, group, names):
            row += 1
            yield row, record
