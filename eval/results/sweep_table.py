"""The best d of each exit as text."""

from collections.abc import Sequence

from eval.config import Mode
from eval.results.columns import aligned, wrapped
from eval.results.rows import Row
from eval.results.sweep_config import AGREEMENT
from eval.results.sweep_findings import name, stated
from eval.results.table import cell


def table(rows: Sequence[Row], quality: str) -> str:
    """Self-speculation at its best d, beside early exit at the same E; then the front."""
    early = {row["exit_layer"]: row for row in rows if row["mode"] == Mode.early_exit}
    plain = next(row for row in rows if row["mode"] == Mode.autoregressive)
    head = ["E", "best d", "speed-up", "q25-q75", "tokens/s", "accepted", "per round", "identical", quality]
    lines = [[*head, "| early exit", f"its {quality}"]]
    for row in (row for row in rows if row["best_of_exit"]):
        quartiles = f"{row['speedup_q25']:.2f}-{row['speedup_q75']:.2f}"
        d, other = str(row["num_speculations"]), early[row["exit_layer"]]
        own = [_cell(row, key) for key in ("tokens_per_second", "acceptance_rate", "tokens_per_round")]
        own += [_identical(row), _cell(row, quality), _cell(other, "speedup"), _cell(other, quality)]
        lines.append([str(row["exit_layer"]), d, _cell(row, "speedup"), quartiles, *own])
    speed = [_cell(plain, "speedup"), "-", _cell(plain, "tokens_per_second")]
    lines.append([str(plain["exit_layer"]), "plain", *speed, "-", "-", "-", _cell(plain, quality), "", ""])
    front = sorted((row for row in rows if row["on_front"]), key=lambda row: -float(row["speedup"]))
    legend = [
        "speed-up over plain decoding: median of pairs, and quartiles; identical: texts that are plain decoding's;"
        " early exit: its speed-up at the same E"
    ]
    if quality == AGREEMENT:
        legend.append(f"{AGREEMENT}: the share of full depth's text before the first token that differs")
    points = "; ".join(f"{_mode(row)} ({_cell(row, 'speedup')}, {_cell(row, quality)})" for row in front)
    told = [*legend, *stated(plain), f"on the front of speed-up and {quality}: {points}"]
    return "\n".join([*aligned(lines, n_names=2), *map(wrapped, told)])


def _cell(row: Row, key: str) -> str:
    return cell(key, row[key], 3 if f"{key}_low" in row and key != "speedup" else 2)


def _identical(row: Row) -> str:
    if row["identical_share"] is None:  # drawn texts
        return "-"
    ties = row["near_ties"]
    return f"{row['identical_share']:.0%}" + (f", {ties} near-tie{'s' if ties > 1 else ''}" if ties else "")


def _mode(row: Row) -> str:
    return name(row) if row["mode"] == Mode.autoregressive else f"{row['mode'].replace('_', '-')} {name(row)}"
