"""Speed-up of self-speculation by exit layer, a panel for each task, a point for each arm and exit."""

from collections.abc import Sequence

from eval.config import Mode
from eval.figure.config import Spread
from eval.figure.panel import Axis, Drawn, Line, Panel
from eval.figure.speed_rows import SPEEDUP, SpeedRow, best_drafts


def speedups(rows: Sequence[SpeedRow], spread: Spread) -> Drawn:
    """At the fastest d of each exit layer, which stands above the point."""
    drafting = [
        row for row in best_drafts(rows) if row.setting.mode == Mode.self_speculative and row.setting.exit_layer
    ]
    panels = []
    for task in dict.fromkeys(row.task for row in drafting):
        lines = []
        for arm in dict.fromkeys(row.arm for row in drafting if row.task == task):
            its = [row for row in drafting if (row.task, row.arm) == (task, arm)]
            lines.append(
                Line(
                    arm=arm,
                    x=[row.setting.exit_layer for row in its],
                    bands=[row.numbers[SPEEDUP] for row in its],
                    notes=[str(row.setting.num_speculations) for row in its],
                )
            )
        panels.append(Panel(title=task, label="speed-up", axis=Axis.exits, lines=lines, joined=False, reference=1.0))
    facts = "; ".join(dict.fromkeys(row.facts for row in drafting))
    return Drawn(
        panels=panels,
        caption="self-speculation over autoregressive decoding (the line) at the fastest d (above each point);"
        f" {intervals(rows, spread)}; {facts}",
    )


def intervals(rows: Sequence[SpeedRow], spread: Spread) -> str:
    """What the intervals of these rows are."""
    counts = sorted({row.n for row in rows})
    over_seeds = "smallest to largest" if spread is Spread.min_max else "one sample standard deviation to each side"
    parts = ["of one seed 95 % intervals over samples"] if counts[0] == 1 else []
    if counts[-1] > 1:
        n = ", ".join(str(count) for count in counts if count > 1)
        parts.append(f"means over seeds (n = {n}), {over_seeds}")
    return "; ".join(parts)
