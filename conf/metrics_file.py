"""metrics.jsonl of a run folder, which training writes and everything else reads."""

import json
import logging
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"

logger = logging.getLogger(__name__)


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, less a half-written last line and, with a warning, others that are damaged."""
    rows, damaged = parse_rows(Path(path).read_bytes())
    if damaged:
        logger.warning("%s: %d damaged lines are left out", path, damaged)
    return rows


def parse_rows(content: bytes, key: str = "step") -> tuple[list[dict[str, Any]], int]:
    """The rows of a log of JSON lines, less a half-written last line, and how many other lines are damaged.

    Args:
        content: of the file, or of some whole lines of it.
        key: what each row has a whole number under.
    """
    rows, damaged = [], 0
    lines = content.split(b"\n")
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # not JSON, or not UTF-8
            damaged += bool(line) and line is not lines[-1]
            continue
        if isinstance(row, dict) and isinstance(row.get(key), int):
            rows.append(row)
        else:
            damaged += 1
    return rows, damaged
