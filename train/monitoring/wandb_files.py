"""W&B's files of a run on this disk, cut back to the step that the run goes on from, as metrics.jsonl is.

W&B writes everything into wandb/<offline-run|run>-TIME-ID/run-ID.wandb, one such folder for each start: 7 bytes, then
records of protobuf in LevelDB's log format, in blocks of 32 KiB. A killed process leaves a file that ends within a
record, and `wandb sync` stops there, before the files of later starts. Each file is cut at the first row of a later
step, or at its last whole record.
"""

import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HEADER = b":W&B" + struct.pack("<HB", 0xBEE1, 0)
BLOCK, CHUNK = 1 << 15, struct.Struct("<IHB")
FULL, FIRST, LAST = 1, 2, 4
"""Kinds of chunks; a record is one full one, or a first, some in between, and a last one."""


class Taken(NamedTuple):
    """What W&B has of a run already."""

    step: int
    """Of its last row; 0: none."""
    keys: frozenset[str]
    """Of that row."""
    later: int
    """Of the last row that cannot be taken back: it is, or may be, on the server; 0: none."""
    code: frozenset[str]
    """Revisions whose code is there."""


def records(path: Path) -> Iterator[tuple[int, bytes]]:
    """(offset of its end, content) of every whole record, up to the first that is damaged."""
    data = path.read_bytes()
    if not data.startswith(HEADER):
        return
    offset, content = len(HEADER), b""
    while offset + CHUNK.size <= len(data):
        if (left := BLOCK - offset % BLOCK) < CHUNK.size:
            offset += left
            continue
        checksum, length, kind = CHUNK.unpack_from(data, offset)
        begin, offset = offset + CHUNK.size, offset + CHUNK.size + length
        if offset > len(data) or zlib.crc32(data[begin - 1 : offset]) != checksum:
            return
        content = data[begin:offset] if kind in (FULL, FIRST) else content + data[begin:offset]
        if kind in (FULL, LAST):
            yield offset, content


def row_of(record: Any) -> dict[str, Any]:
    """The metrics of a record; empty if it is of another kind. Rows of training, and they alone, have a `step`."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}


def files_of(folder: Path, run_id: str) -> list[Path]:
    """The .wandb files of a run in its folder wandb/, in the order of its starts."""
    # A second start in the same second has -1 after the id.
    found = folder.glob(f"*run-*-{run_id}*/run-{run_id}.wandb")
    return sorted(found, key=lambda path: path.parent.name.partition("run-")[2])


def cut_back(folder: Path, run_id: str, step: int) -> Taken | None:
    """Cut the files of a run back to a step; None if there are none.

    Rows that are on the server stay: those of files that `wandb sync` has marked, and those of a run that is online. A
    file without any row is deleted with its folder if it does not even say of which run it is.
    """
    files = files_of(folder, run_id)
    if not files:
        return None
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    last, keys, later, revision, code = 0, frozenset[str](), 0, "", set[str]()
    for path in files:
        offline = path.parent.name.startswith("offline-")
        sent = not offline or any(path.parent.glob(path.name + ".sync*"))
        end, n_records = len(HEADER), 0
        for offset, content in records(path):
            record = Record.FromString(content)
            row = row_of(record)
            if (of_row := int(row.get("step", 0))) > step:
                if not sent:
                    break
                later = max(later, of_row)
            elif row and of_row >= last:
                last, keys = of_row, frozenset(row)
            given = (json.loads(item.value_json) for item in record.run.config.update if item.key == "revision")
            revision = next(given, revision)
            if record.artifact.type == "code":
                code.add(revision)
            end, n_records = offset, n_records + 1
        if offline and n_records < 2:  # the first is of this version of W&B, the second of the run
            shutil.rmtree(path.parent)
        elif offline and end < path.stat().st_size:
            os.truncate(path, end)
    return Taken(last, keys, later, frozenset(code))
