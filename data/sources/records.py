"""Records from the raw lines of a file, or the rows of a Parquet file."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.config import DataError
from data.sources.documents import TSV_FIELDS, Bad


def decoded(raw: bytes, where: str, line: int | None = None) -> str | Bad:
    """UTF-8 text, or what is wrong with it: in the given line, or in that of the first bad byte."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1 if line is None else line
        return Bad(f"{where}:{line}: not UTF-8 (byte 0x{raw[error.start]:02x}); convert the file")


def line_records(raw: bytes, path: Path, first_line: int, columns: list[str] | None) -> Iterator[tuple[int, Any]]:
    """(line, record or Bad) of every line that is not blank: JSON, or the columns of a .tsv file."""
    lines = raw.split(b"\n")
    for line, content in enumerate(lines, first_line):
        if not content.strip():
            continue
        text = decoded(content, str(path), line)
        if isinstance(text, Bad):
            yield line, text
        elif columns is not None:
            values = text.rstrip("\r").split("\t")
            if len(values) == len(columns):
                yield line, dict(zip(columns, values, strict=True))
            else:
                yield line, Bad(f"{path}:{line}: {len(values)} columns, but the first line names {len(columns)}")
        else:
            yield line, _json(text, path, line)


def _json(text: str, path: Path, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        return Bad(f"{path}:{line}: broken JSON ({error.msg})")
    except (RecursionError, ValueError):  # a number of thousands of digits is a ValueError
        return Bad(f"{path}:{line}: broken JSON (too deep, or a number too long)")


def tsv_columns(first_line: bytes, path: Path) -> list[str]:
    """The names in the first line. Raises DataError when there are none."""
    text = decoded(first_line, str(path), 1)
    if isinstance(text, Bad):
        raise DataError(text.message)
    names = text.rstrip("\r\n").split("\t")
    if len(names) < 2:
        what = "the file is empty" if not first_line else "the first line must name the columns"
        raise DataError(f"{path}:1: {what} (for TOPv2: {' '.join(TSV_FIELDS)}, separated by tabs)")
    # The files of TOPv2's low-resource splits name the parse otherwise.
    return ["semantic_parse" if name == "seqlogical" else name for name in names]


def parquet_records(path: Path, group: int, columns: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a row group, a batch in memory at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1024, row_groups=[group], columns=columns):
            yield from batch.to_pylist()
