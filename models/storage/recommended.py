"""With which exit layer and how many drafts to decode, by what has been measured in a checkpoint's folder."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from conf.provenance import Provenance

RECOMMENDED = "recommended.json"
"""Holds what a user has asked for: a row, or that of policy=dynamic and the best with fixed numbers."""
FILE = "benchmark.json"
"""Holds the rows of the measurement that eval.benchmark makes by itself."""

POLICIES = ("fixed", "confidence", "dynamic")
"""Who decides how to draft (eval.config.DraftPolicy)."""


@dataclass(frozen=True, kw_only=True)
class Recommended:
    """The fastest self-speculative setting of a measurement."""

    exit_layer: int
    num_speculations: int
    policy: str
    """fixed, confidence, or dynamic, which chooses exit_layer and num_speculations itself. Those here are then the best
    fixed ones, for a decoder that cannot choose."""
    speedup: float
    """Over autoregressive decoding."""
    acceptance_rate: float | None
    """Accepted share of the drafts, where the file says so."""
    draft_vocab: int | None
    """Tokens of the vocabulary that the drafts were chosen from; None: all."""
    provenance: str
    """Machine and code of the measurement in a line; empty where the file does not say."""
    file: Path
    """Where it stands."""

    @property
    def pays(self) -> bool:
        """Whether it is faster than autoregressive decoding."""
        return self.speedup > 1


def default_exit(n_layers: int) -> int:
    """The exit layer to try where nothing has been measured: a quarter of the layers, as in the paper's 7B."""
    return max(1, n_layers // 4)


def _fastest(rows: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The self-speculative row with the largest speed-up; None if there is none."""
    return max((r for r in rows if r["mode"] == "self_speculative"), key=lambda r: r["speedup"], default=None)


def recommended(folder: Path) -> Recommended | None:
    """What a user has asked for, else the fastest of benchmark.json, else of the newest benchmark with other settings.

    None without any, or without one that can be read.
    """
    for file in _measurements(folder):
        try:
            rows = json.loads(file.read_text())
            if row := _fastest(rows):
                # Where each round chooses, the row has neither E nor d.
                numbers = row if row["exit_layer"] else _fastest(r for r in rows if not r.get("policy"))
                return _read(row, numbers or {}, file)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _read(row: Mapping[str, Any], numbers: Mapping[str, Any], file: Path) -> Recommended:
    """Raises KeyError, TypeError or ValueError for what is no row of ours."""
    rate, names = row.get("acceptance_rate"), [f.name for f in fields(Provenance)]
    policy = str(row.get("policy") or "fixed")
    if policy not in POLICIES:
        raise ValueError(f"policy={policy}: must be {' or '.join(POLICIES)}")
    return Recommended(
        exit_layer=int(numbers["exit_layer"]),
        num_speculations=int(numbers["num_speculations"]),
        policy=policy,
        speedup=float(row["speedup"]),
        acceptance_rate=None if rate is None else float(rate),
        draft_vocab=None if row.get("draft_vocab") is None else int(row["draft_vocab"]),
        provenance=str(Provenance(**{name: row[name] for name in names})) if row.keys() >= set(names) else "",
        file=file,
    )


def _measurements(folder: Path) -> Iterator[Path]:
    yield from (folder / RECOMMENDED, folder / FILE)
    # Those of an older checkpoint's weights, and those that a newer measurement has taken the name of, are passed over.
    passed_over = re.compile(r"benchmark_step-|.*\.[0-9a-f]{8}\.json$")
    others = [file for file in folder.glob("benchmark_*.json") if not passed_over.match(file.name)]
    yield from sorted(others, key=lambda file: file.stat().st_mtime, reverse=True)
