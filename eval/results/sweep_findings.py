"""What a sweep finds: the best number of drafts for each exit, and who is on the front of speed and quality."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from eval.config import Mode
from eval.engine.agreement import first_difference
from eval.measure.records import Record
from eval.results import bootstrap
from eval.results.bootstrap import Estimate
from eval.results.row import Row, fastest_drafting, flat
from eval.results.sweep_config import AGREEMENT

PREFERRED = ("pass@1", "exact_match", "rouge2")


@dataclass(frozen=True, kw_only=True)
class SweepRow(Row):
    """One setting of a sweep."""

    equal_prefix: Estimate | None
    """The share of autoregressive decoding's text before the first token that differs; None where tokens are drawn."""
    best_of_exit: bool = False
    """Whether no other number of drafts is faster with this exit layer."""
    on_front: bool = False
    """Whether no other setting is as fast and as good, and in one of the two better."""

    def quality(self, name: str) -> Estimate:
        """A metric of the task, or `equal_prefix`. Raises KeyError when it was not measured."""
        found = self.equal_prefix if name == AGREEMENT else self.metrics[name]
        if found is None:
            raise KeyError(name)
        return found

    def as_json(self) -> dict[str, Any]:
        """A row of a benchmark, and what the sweep has found."""
        prefix = {} if self.equal_prefix is None else flat({AGREEMENT: self.equal_prefix})
        return super().as_json() | prefix | {"best_of_exit": self.best_of_exit, "on_front": self.on_front}


def with_findings(rows: Sequence[Row], records: Sequence[Record], quality: str | None) -> tuple[list[SweepRow], str]:
    """The rows with what the sweep finds; and what stands for quality in it.

    On the front are those of autoregressive decoding, early exit, and self-speculation at its best d for each E, than
    which none is as fast and as good and in one of the two better.

    Args:
        rows: of every setting.
        records: what they sum up.
        quality: what is asked for; None: the first of PREFERRED that there is, else AGREEMENT.

    Raises KeyError when there are no such numbers.
    """
    found = _with_prefixes(rows, records)
    quality = quality or next((m for m in PREFERRED if m in found[0].metrics), AGREEMENT)
    best = {row.setting for row in best_of_exits(found)}
    shown = [row for row in found if row.mode != Mode.self_speculative or row.setting in best]
    on_front = pareto([(row.speed.speedup.value, row.quality(quality).value) for row in shown])
    front = {row.setting for row, on in zip(shown, on_front, strict=True) if on}
    return [replace(r, best_of_exit=r.setting in best, on_front=r.setting in front) for r in found], quality


def _with_prefixes(rows: Sequence[Row], records: Sequence[Record]) -> list[SweepRow]:
    texts = {(r.setting, r.key): r.tokens for r in records}
    autoregressive = next(row.setting for row in rows if row.mode == Mode.autoregressive)
    found = []
    for row in rows:
        prefixes = [
            equal_prefix(tokens, texts[autoregressive, key])
            for (setting, key), tokens in texts.items()
            if setting == row.setting and key[1] == 0
        ]
        drawn = row.output.identical_share is None  # texts that are not expected to be the same
        share = None if drawn else bootstrap.estimate(prefixes, bootstrap.mean)
        found.append(SweepRow(**{f.name: getattr(row, f.name) for f in fields(row)}, equal_prefix=share))
    return found


def equal_prefix(text: Sequence[int], autoregressive: Sequence[int]) -> float:
    """The share of a text before the first token that is not autoregressive decoding's; of the longer one of the
    two.
    """
    at = first_difference(text, autoregressive)
    return 1.0 if at is None else at / max(len(text), len(autoregressive))


def best_of_exits(rows: Sequence[Row]) -> list[Row]:
    """For each E the row of self-speculation with the largest speed-up; of equal ones the fewest drafts."""
    drafting = sorted(
        (row for row in rows if row.mode == Mode.self_speculative), key=lambda row: row.setting.num_speculations
    )
    exits = sorted({row.setting.exit_layer for row in drafting})
    found = [fastest_drafting(row for row in drafting if row.setting.exit_layer == e) for e in exits]
    return [row for row in found if row is not None]


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points no other one beats: as large in both numbers and larger in one. Equal points are on it together."""
    return [not any(x >= a and y >= b and (x, y) != (a, b) for x, y in points) for a, b in points]


def facts_lines(row: Row) -> list[str]:
    """Checkpoint, samples, machine and code, in two lines: what a figure of a sweep says of itself."""
    counts = row.counts
    return [
        f"{row.facts.checkpoint}; {counts.task}: {counts.n_samples} samples, seed {counts.seed},"
        f" {counts.repeats} times each, {counts.new_tokens:,.0f} new tokens on average"
        + (f", chosen with {how}" if (how := row.facts.sampling) else ""),
        str(row.facts.provenance),
    ]
