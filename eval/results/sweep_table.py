"""The best d of each exit as text."""

from collections.abc import Sequence

from eval.config import Mode
from eval.results.columns import aligned, wrapped
from eval.results.row import Output
from eval.results.sweep_config import AGREEMENT
from eval.results.sweep_findings import SweepRow, facts_lines
from eval.results.table import cell


def sweep_table(rows: Sequence[SweepRow], quality: str) -> str:
    """Self-speculation at its best d, beside early exit at the same E; then the front."""
    early = {row.setting.exit_layer: row for row in rows if row.mode == Mode.early_exit}
    autoregressive = next(row for row in rows if row.mode == Mode.autoregressive)
    head = ["E", "best d", "speed-up", "q25-q75", "tokens/s", "accepted", "per round", "identical", quality]
    lines = [[*head, "| early exit", f"its {quality}"]]
    for row in (row for row in rows if row.best_of_exit):
        exit_layer, d = row.setting.exit_layer, row.setting.num_speculations
        other = early[exit_layer]
        quartiles = f"{row.speed.speedup_q25:.2f}-{row.speed.speedup_q75:.2f}"
        drafts = [cell(row.drafts.acceptance_rate), cell(row.drafts.tokens_per_round)]
        beside = [_speedup(other), _quality(other, quality)]
        numbers = [_speedup(row), quartiles, _tokens_per_second(row), *drafts, _identical(row.output)]
        lines.append([str(exit_layer), str(d), *numbers, _quality(row, quality), *beside])
    speed = [_speedup(autoregressive), "-", _tokens_per_second(autoregressive)]
    lines.append(
        [
            str(autoregressive.setting.exit_layer),
            "plain",
            *speed,
            "-",
            "-",
            "-",
            _quality(autoregressive, quality),
            "",
            "",
        ]
    )
    front = sorted((row for row in rows if row.on_front), key=lambda row: -row.speed.speedup.value)
    legend = [
        "speed-up over autoregressive decoding: median of pairs, and quartiles; identical: texts that are"
        " autoregressive decoding's; early exit: its speed-up at the same E"
    ]
    if quality == AGREEMENT:
        legend.append(f"{AGREEMENT}: the share of autoregressive decoding's text before the first token that differs")
    points = "; ".join(f"{row.setting.label} ({_speedup(row)}, {_quality(row, quality)})" for row in front)
    legend += [*facts_lines(autoregressive), f"on the front of speed-up and {quality}: {points}"]
    return "\n".join([*aligned(lines, n_names=2), *map(wrapped, legend)])


def _speedup(row: SweepRow) -> str:
    return cell(row.speed.speedup.value)


def _tokens_per_second(row: SweepRow) -> str:
    return cell(row.speed.tokens_per_second, 0)


def _quality(row: SweepRow, quality: str) -> str:
    return cell(row.quality(quality).value, 3)


def _identical(output: Output) -> str:
    if output.identical_share is None:  # drawn texts
        return "-"
    ties = output.near_ties
    return f"{output.identical_share:.0%}" + (f", {ties} near-tie{'s' if ties > 1 else ''}" if ties else "")
