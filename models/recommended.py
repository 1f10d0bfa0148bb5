"""The fastest self-speculative setting that a folder's own benchmark.json has measured."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FILE = "benchmark.json"


def fastest(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The self-speculative row with the largest speed-up; None if there is none."""
    return max((r for r in rows if r["mode"] == "self_speculative"), key=lambda r: r["speedup"], default=None)


def recommended(folder: Path) -> dict[str, Any] | None:
    """The fastest row of the folder's benchmark; None without one, or with one that cannot be read."""
    try:
        return fastest(json.loads((folder / FILE).read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None
