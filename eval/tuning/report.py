"""What autotune shows: predictions as heat maps, and the candidates with what was predicted and measured of them."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from eval.config import Mode
from eval.engine.policy import MOST_DRAFTS
from eval.results.columns import aligned, wrapped
from eval.results.heat_map import heat_map
from eval.results.row import Row
from eval.results.table import cell
from eval.tuning.calibration import Calibration
from eval.tuning.prediction import Predicted


def tuning_table(rows: Sequence[Row], predicted: Sequence[Predicted]) -> str:
    """The candidates, the fastest measured first."""
    of = {(p.exit_layer, p.num_speculations): p for p in predicted}
    head = [
        "setting",
        "speed-up",
        "q25-q75",
        "predicted",
        "accepted",
        "predicted",
        "per round",
        "predicted",
        "tokens/s",
    ]
    lines = [head]
    for row in sorted(rows, key=lambda row: -row.speed.speedup.value):
        speed, setting, drafts = row.speed, row.setting, row.drafts
        p = of.get((setting.exit_layer, setting.num_speculations)) if setting.policy is None else None
        lines.append(
            [
                setting.numbers or "plain",
                cell(speed.speedup.value),
                f"{speed.speedup_q25:.2f}-{speed.speedup_q75:.2f}",
                cell(p and p.speedup),
                cell(drafts.acceptance_rate),
                cell(p and p.acceptance_rate),
                cell(drafts.tokens_per_round),
                cell(p and p.tokens_per_round),
                cell(speed.tokens_per_second, 0),
            ]
        )
    legend = (
        "speed-up over plain decoding, median of pairs, quartiles; predicted: by the replay of the plain texts and"
        " the time of single passes, as the ratio of the sums"
    )
    return "\n".join([*aligned(lines), wrapped(legend)])


def tuning_figure(rows: Sequence[Row], predicted: Sequence[Predicted]) -> Figure:
    """Predicted speed-up and acceptance of every exit and number of drafts; candidates are framed."""
    exits, drafts = sorted({p.exit_layer for p in predicted}), list(range(1, MOST_DRAFTS + 1))
    speedups, rates = (np.full((len(exits), len(drafts)), np.nan) for _ in range(2))
    for p in predicted:
        place = exits.index(p.exit_layer), p.num_speculations - 1
        speedups[place], rates[place] = p.speedup, p.acceptance_rate
    steady = [r.setting for r in rows if r.mode == Mode.self_speculative and r.setting.policy is None]
    framed = [(exits.index(s.exit_layer), s.num_speculations - 1) for s in steady]
    figure = Figure(figsize=(17.5, max(3.4, 1.6 + 0.4 * len(exits))), layout="constrained")
    left, right = figure.subplots(1, 2)
    heat_map(left, speedups, exits, drafts, title="Predicted speed-up over plain decoding", digits=".2f", framed=framed)
    title = "Predicted accepted share of the drafts"
    heat_map(right, rates, exits, drafts, title=title, digits=".0%", limits=(0.0, 1.0), framed=framed)
    counts, facts = rows[0].counts, rows[0].facts
    source = f"{facts.checkpoint}; {counts.task}: {counts.n_samples} samples, {counts.new_tokens:,.0f} new tokens each"
    figure.supxlabel("\n".join(["framed: decoded with", source, str(facts.provenance)]), fontsize="small")
    return figure


def tuning_json(rows: Sequence[Row], predicted: Sequence[Predicted], calibration: Calibration) -> dict[str, Any]:
    """What the file holds."""
    exits = sorted({p.exit_layer for p in predicted})
    return {
        "samples_file": rows[0].facts.samples_file,
        "predicted": [p._asdict() for p in predicted],
        "acceptance_by_position": {e: calibration.acceptance(e) for e in exits},
        "passes": [
            {"exit_layer": e, "num_speculations": d, **times._asdict()} for (e, d), times in calibration.passes.items()
        ],
        "measured": [row.as_json() for row in rows],
        **asdict(rows[0].facts.provenance),
    }
