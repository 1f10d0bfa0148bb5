"""A benchmark's rows on the screen and in files."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from data.files import write_whole
from eval.results.columns import aligned, wrapped
from eval.results.rows import Row

SETTING = {"mode": "mode", "exit_layer": "E", "num_speculations": "d"}
ABLATION = {"exit_states": "exit states"}
SPEED = {
    "tokens_per_second": "tokens/s",
    "acceptance_rate": "accepted",
    "tokens_per_round": "per round",
    "speedup": "speed-up",
}
QUARTILES = {"speedup_q25": "q25", "speedup_q75": "q75"}
BASELINE = {"speedup_over_baseline": "over baseline"}
IDEALS = {
    "ideal_speedup": "ideal",
    "measured_cost_ideal": "measured",
    "share_of_measured_cost_ideal": "share",
    "identical_output": "same",
    "distinct_4grams": "4-grams",
}
MEANS = {"speedup_of_means": "of means"}
WITH_INTERVAL = {"speedup", "speedup_of_means", "speedup_over_baseline"}
DIGITS = {"tokens_per_second": 0}
NESTED = ("by_group", "by_prompt_length", "by_position")


def table(rows: list[Row], metrics: Sequence[str]) -> str:
    """The rows as text, with a legend; with metrics intervals stand beside what is estimated."""
    columns = _setting(rows) | {name: name for name in metrics} | SPEED
    columns |= MEANS if metrics else QUARTILES
    if "speedup_over_baseline" in rows[0]:
        columns |= BASELINE
    columns |= IDEALS
    intervals = {*metrics, *WITH_INTERVAL} if metrics else set[str]()
    cells = [[_cell(key, row, interval=key in intervals) for key in columns] for row in rows]
    lines = aligned([list(columns.values()), *cells], n_names=len(_setting(rows)))
    return "\n".join([*lines, *map(wrapped, _legend(rows[0], bool(metrics)))])


def _cell(key: str, row: Row, *, interval: bool) -> str:
    if key == "identical_output" and row[key] and row["near_ties"]:
        return f"{row['near_ties']} tie{'s' if row['near_ties'] > 1 else ''}"
    return _interval(key, row) if interval else cell(key, row[key])


def _setting(rows: list[Row]) -> dict[str, str]:
    """The columns that name a setting; those that never differ are left out."""
    return SETTING | (ABLATION if any(row["exit_states"] == "recompute" for row in rows) else {})


def cell(key: str, value: object, digits: int = 2) -> str:
    """A value as text."""
    if value is None or (key == "num_speculations" and value == 0):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.{DIGITS.get(key, digits)}f}" if isinstance(value, float) else str(value)


def _interval(key: str, row: Row) -> str:
    digits = 2 if key in WITH_INTERVAL else 3
    if row.get(key) is None:
        return "-"
    return f"{row[key]:.{digits}f} [{row[f'{key}_low']:.{digits}f}, {row[f'{key}_high']:.{digits}f}]"


def _legend(plain: Row, intervals: bool) -> list[str]:
    beside = "of means: the paper's, ratio of mean times per token" if intervals else "with quartiles"
    lines = [
        f"E: layers of draft or exit; d: tokens drafted per round; speed-up over autoregressive: median of pairs,"
        f" {beside}; ideal: by blocks and head; measured: by the measured time of each pass, and the share of"
        " it that was reached; same: autoregressive's text, or but for so many near-ties;"
        " 4-grams: share that are distinct." + (" [ ]: 95 % intervals." if intervals else ""),
    ]
    each = f", {plain['repeats']} times each" if plain["repeats"] > 1 else ""
    lines.append(
        f"{plain['task']}: {plain['n_samples']} samples, seed {plain['seed']}{each};"
        f" prompts of {plain['prompt_tokens']:,.0f} tokens and {plain['new_tokens']:,.0f} new ones on average;"
        f" {plain['hardware']}, {plain['threads']} threads, {plain['dtype']}, torch {plain['torch']},"
        f" commit {plain['commit'][:12]}"
    )
    if plain.get("transformers"):
        lines.append(
            f"autoregressive is {plain['speedup_over_transformers']:.2f} times as fast as generate of transformers"
            f" {plain['transformers']} ({plain['transformers_tokens_per_second']:,.0f} tokens/s); same text in"
            f" {plain['same_as_transformers']:.0%}"
        )
    return lines


def details(rows: list[Row], metrics: Sequence[str]) -> str:
    """A table for each breakdown: a line per setting and part."""
    return "\n\n".join(text for key in NESTED if (text := _breakdown(rows, key, metrics)))


def _breakdown(rows: list[Row], key: str, metrics: Sequence[str]) -> str:
    parts = [part for row in rows for part in row[key]]
    if not parts:
        return ""
    names = dict.fromkeys(name for part in parts for name in part)
    columns = [name for name in names if name in metrics or not _is_metric(name, rows[0])]
    lines = [[*_setting(rows).values(), *columns]]
    for row in rows:
        setting = [cell(name, row[name]) for name in _setting(rows)]
        lines += [
            [*setting, *(cell(name, part.get(name), 3 if name in metrics else 2) for name in columns)]
            for part in row[key]
        ]
    return "\n".join([key.replace("_", " "), *aligned(lines, n_names=len(_setting(rows)) + 1)])


def _is_metric(name: str, row: Row) -> bool:
    return f"{name}_low" in row and name not in WITH_INTERVAL


def save(rows: list[Row], path: Path) -> Path:
    """Write the rows as JSON and, without lists, as CSV beside it; its path. A kill leaves no half file."""
    write_whole(path, (json.dumps(rows, indent=1) + "\n").encode())
    flat: list[Mapping[str, object]] = [{k: v for k, v in row.items() if not isinstance(v, list)} for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in flat for key in row)))
    writer.writeheader()
    writer.writerows(flat)
    out = path.with_suffix(".csv")
    write_whole(out, text.getvalue().encode())
    return out
