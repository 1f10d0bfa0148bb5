"""metrics.jsonl of a run folder, which training writes and everything else reads."""

import json
import logging
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"

logger = logging.getLogger(__name__)


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, less a half-written last line and, with a warning, others that are damaged."""
    rows, damaged = [], 0
    lines = Path(path).read_bytes().split(b"\n")
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # not JSON, or not UTF-8
            damaged += bool(line) and line is not lines[-1]
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
        else:
            damaged += 1
    if damaged:
        logger.warning("%s: %d damaged lines are left out", path, damaged)
    return rows
