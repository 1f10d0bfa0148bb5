"""With which exit layer and how many drafts to decode, by what has been measured in a checkpoint's folder."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

RECOMMENDED = "recommended.json"
"""Holds one row, which a user has asked for."""
FILE = "benchmark.json"
"""Holds the rows of the measurement that eval.benchmark makes by itself."""


class Recommended(NamedTuple):
    """The fastest self-speculative setting of a measurement."""

    row: dict[str, Any]
    file: Path
    """Where it stands."""

    @property
    def pays(self) -> bool:
        """Whether it is faster than autoregressive decoding."""
        return bool(self.row["speedup"] > 1)


def default_exit(n_layers: int) -> int:
    """The exit layer to try where nothing has been measured: a quarter of the layers, as in the paper's 7B."""
    return max(1, n_layers // 4)


def fastest(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The self-speculative row with the largest speed-up; None if there is none."""
    return max((r for r in rows if r["mode"] == "self_speculative"), key=lambda r: r["speedup"], default=None)


def recommended(folder: Path) -> Recommended | None:
    """What a user has asked for, else the fastest of benchmark.json, else of the newest benchmark with other settings.

    None without any, or without one that can be read.
    """
    for file in _measurements(folder):
        try:
            if (row := fastest(json.loads(file.read_text()))) is not None:
                numbers = {"exit_layer": int(row["exit_layer"]), "num_speculations": int(row["num_speculations"])}
                return Recommended(row | numbers | {"speedup": float(row["speedup"])}, file)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _measurements(folder: Path) -> Iterator[Path]:
    yield from (folder / RECOMMENDED, folder / FILE)
    # Those of an older checkpoint's weights, and those that a newer measurement has taken the name of, are passed over.
    passed_over = re.compile(r"benchmark_step-|.*\.[0-9a-f]{8}\.json$")
    others = [file for file in folder.glob("benchmark_*.json") if not passed_over.match(file.name)]
    yield from sorted(others, key=lambda file: file.stat().st_mtime, reverse=True)
