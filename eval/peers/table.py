"""Rows of the comparison, for files and the screen; ratios are medians over batches of prompts that took turns."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from eval.peers.config import Peer
from eval.peers.contest import Compared, Measurement
from eval.peers.systems import PLAIN, SPECULATION, Way
from eval.results.bootstrap import quartiles
from eval.results.columns import aligned, wrapped
from eval.results.table import cell, same_cell


class Ratio(NamedTuple):
    """A median of paired ratios, and its quartiles."""

    value: float
    q25: float
    q75: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.q25:.2f}, {self.q75:.2f}]"


@dataclass(frozen=True, kw_only=True)
class PeerRow:
    """One decoder with its best setting."""

    way: Way
    tokens_per_second: float
    """Of all prompts of a batch together; the median batch."""
    cpu_ms_per_token: float
    speedup: Ratio
    """Over the same system's plain decoding."""
    ours_over: Ratio
    """How much faster our engine is in the same mode: plain by plain, best self-speculation by any speculation."""
    identical_output: bool
    """Whether all texts are our plain decoding's, or part from them at a near-tie."""
    identical_share: float
    near_ties: int

    def as_json(self, facts: dict[str, Any]) -> dict[str, Any]:
        """A row of the result file."""
        numbers = {f: getattr(self, f) for f in ("tokens_per_second", "cpu_ms_per_token")}
        for name, ratio in (("speedup", self.speedup), ("ours_over", self.ours_over)):
            numbers |= {name: ratio.value, f"{name}_q25": ratio.q25, f"{name}_q75": ratio.q75}
        same = {f: getattr(self, f) for f in ("identical_output", "identical_share", "near_ties")}
        return self.way._asdict() | numbers | same | facts


def ratio(slow: Sequence[Measurement], fast: Sequence[Measurement]) -> Ratio:
    """How many times as fast `fast` is, per token, batch by batch."""
    ratios = [s.seconds_per_token / f.seconds_per_token for s, f in zip(slow, fast, strict=True)]
    return Ratio(median(ratios), *quartiles(ratios))


def peer_rows(found: Compared) -> list[PeerRow]:
    """A row for each decoder, ours first."""
    by_mode = {(way.system, way.mode): its for way, its in found.contest.items()}
    rows = []
    for way, its in found.contest.items():
        same = found.same[way]
        ours = by_mode[Peer.ours.value, PLAIN if way.mode == PLAIN else _mode_of_ours(by_mode, way.mode)]
        rows.append(
            PeerRow(
                way=way,
                tokens_per_second=1 / median(m.seconds_per_token for m in its),
                cpu_ms_per_token=1e3 * median(m.cpu_seconds / sum(map(len, m.tokens)) for m in its),
                speedup=ratio(by_mode[way.system, PLAIN], its),
                ours_over=ratio(its, ours),
                identical_output=same.holds,
                identical_share=same.identical / same.n_texts,
                near_ties=same.near_ties,
            )
        )
    return rows


def _mode_of_ours(by_mode: dict[tuple[str, str], list[Measurement]], mode: str) -> str:
    return mode if (Peer.ours.value, mode) in by_mode else SPECULATION


def peer_table(rows: Sequence[PeerRow], facts: dict[str, Any]) -> str:
    """The rows as text, with a legend and the two ratios that matter."""
    cells = [["system", "mode", "E", "d", "tokens/s", "CPU ms/token", "over own plain", "ours / it", "same"]]
    for row in rows:
        same = same_cell(row.identical_output, row.near_ties)
        numbers = [cell(row.way.exit_layer or None), cell(row.way.num_speculations or None)]
        numbers += [
            f"{row.tokens_per_second:,.0f}",
            f"{row.cpu_ms_per_token:.2f}",
            str(row.speedup),
            str(row.ours_over),
        ]
        cells.append([row.way.system, row.way.mode, *numbers, same])
    legend = (
        "Medians of ratios by batch of prompts, with quartiles; ours / it: our engine in the same mode over this row;"
        " E, d: the fastest of the system's own grid; same: our plain decoding's text, or but for near-ties."
    )
    versions = ", ".join(
        f"{k.removeprefix('version_of_')} {v}" for k, v in facts.items() if k.startswith("version_of_")
    )
    machine = f"{facts['hardware']}, {facts['threads']} threads, {facts['dtype']}, torch {facts['torch']}"
    where = f"{facts['checkpoint']}, {facts['task']}, batch {facts['batch_size']}; {machine}; commit {facts['commit']}"
    return "\n".join([*aligned(cells, n_names=2), wrapped(legend), wrapped(f"{where}; {versions}")])
