"""A benchmark's rows on the screen and in files."""

import csv
import io
import json
from pathlib import Path

from data.files import write_whole
from eval.rows import Row
from models.recommended import fastest

COLUMNS = {
    "mode": "mode",
    "exit_layer": "E",
    "num_speculations": "d",
    "tokens_per_second": "tokens/s",
    "ms_per_token": "ms/token",
    "acceptance_rate": "accepted",
    "tokens_per_round": "per round",
    "speedup": "speed-up",
    "speedup_q25": "q25",
    "speedup_q75": "q75",
    "ideal_speedup": "ideal",
    "measured_cost_ideal": "meas. ideal",
    "share_of_measured_cost_ideal": "share",
    "identical_output": "identical",
    "near_ties": "ties",
    "distinct_4grams": "4-grams",
}
DIGITS = {"tokens_per_second": 0, "ms_per_token": 3}


def table(rows: list[Row]) -> str:
    """The rows as text, with a legend."""
    cells = [list(COLUMNS.values()), *([_cell(key, row[key]) for key in COLUMNS] for row in rows)]
    return "\n".join([*aligned(cells), *_legend(rows[0])])


def aligned(cells: list[list[str]]) -> list[str]:
    """Lines of columns, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in cells
    ]


def _cell(key: str, value: object) -> str:
    if value is None or (key == "num_speculations" and value == 0):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.{DIGITS.get(key, 2)}f}" if isinstance(value, float) else str(value)


def _legend(plain: Row) -> list[str]:
    lines = [
        "E: layers of draft or exit; d: tokens drafted per round; speed-up over autoregressive: median of pairs, with",
        "quartiles; ideal: by blocks and head; meas. ideal: by the measured time of each pass, and the share of it",
        "that was reached; 4-grams: share that are distinct.",
        f"{plain['n_prompts']} prompts of {plain['prompt_tokens']} tokens, {plain['new_tokens']} new tokens,"
        f" {plain['repeats']} times each; {plain['hardware']}, {plain['threads']} threads, {plain['dtype']},"
        f" torch {plain['torch']}, commit {plain['commit'][:12]}",
    ]
    if plain.get("transformers"):
        lines.append(
            f"autoregressive is {plain['speedup_over_transformers']:.2f} times as fast as generate of transformers"
            f" {plain['transformers']} ({plain['transformers_tokens_per_second']:,.0f} tokens/s); same text in"
            f" {plain['same_as_transformers']:.0%}"
        )
    return lines


def best_line(rows: list[Row]) -> str:
    """The fastest self-speculative row in a sentence."""
    row = fastest(rows)
    assert row is not None, "every benchmark has such rows"
    output = "identical output" if row["identical_output"] else "OUTPUT THAT DIFFERS"
    ties = f" but for {row['near_ties']} near-ties" if row["near_ties"] else ""
    return (
        f"best: exit_layer={row['exit_layer']} num_speculations={row['num_speculations']}:"
        f" {row['speedup']:.2f} times the speed of plain decoding ({row['tokens_per_second']:,.0f} tokens/s),"
        f" {row['acceptance_rate']:.0%} of the drafts accepted, {output}{ties}"
    )


def save(rows: list[Row], path: Path) -> Path:
    """Write the rows as JSON and, beside it, as CSV, whose path is returned. A kill leaves no half file."""
    write_whole(path, (json.dumps(rows, indent=1) + "\n").encode())
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    out = path.with_suffix(".csv")
    write_whole(out, text.getvalue().encode())
    return out
