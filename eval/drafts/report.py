"""The numbers of `eval.rejections` as text and in files."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.files import write_whole
from eval.results.columns import aligned, wrapped

TABLES = {
    "by_class": "class of the draft",
    "by_piece": "piece of a word",
    "by_class_and_piece": "class and piece",
    "by_class_of_full": "class of the text's token",
    "by_position": "position in the draft",
    "by_place": "place in the new text",
    "by_rank": "rank in the full model",
    "by_full_probability": "full model's probability",
    "by_confidence": "draft's own probability",
    "by_entropy": "entropy of the draft, bits",
    "by_rank_of_full": "text's token: rank in draft",
}
SHORT = ("by_class", "by_piece", "by_position", "by_rank", "by_confidence")
COLUMNS = ("judged", "accepted", "95 % interval", "rejected", "of all rejected", "lost with them")
PAIRS_SHOWN = 12


def report(found: Mapping[str, Any], *, detail: bool) -> str:
    """What became of the drafts, the tables, the most frequent pairs; `detail` for every table."""
    tables = [_table(found, name) for name in (TABLES if detail else SHORT)]
    return "\n\n".join([_heading(found), *tables, _pairs(found["pairs"]), _legend(found)])


def save(found: Mapping[str, Any], path: Path) -> Path:
    """Write all as JSON and the tables as one CSV beside it; its path. A kill leaves no half file."""
    write_whole(path, (json.dumps(found, indent=1) + "\n").encode())
    rows = [{"table": name, **row} for name in TABLES for row in found[name]]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(["table", *(key for row in rows for key in row)])))
    writer.writeheader()
    writer.writerows(rows)
    out = path.with_suffix(".csv")
    write_whole(out, text.getvalue().encode())
    return out


def _heading(found: Mapping[str, Any]) -> str:
    lines = [
        f"E={found['exit_layer']} of {found['n_layers']} layers, d={found['num_speculations']}: {found['drafted']:,}"
        f" tokens drafted in {found['rounds']:,} rounds",
    ]
    if found["drafted"]:
        never = found["after_rejection"] + found["after_end"]
        lines += [
            f"{found['accepted']:,} accepted, {found['rejected']:,} rejected, {never:,} never judged"
            f" ({found['after_rejection']:,} after a rejection, {found['after_end']:,} after the text's end)",
            f"accepted of all drafted {_share(found['acceptance_rate'])} {_interval(found, 'acceptance_rate')}, of"
            f" those judged {_share(found['acceptance'])} {_interval(found, 'acceptance')}",
        ]
    if found["near_ties"]:
        lines.append(f"near-ties: {found['near_ties']:,} (one pass over the text says otherwise, within rounding)")
    if found["unexplained"]:
        lines.append(f"ERROR: {found['unexplained']:,} drafts are not what one pass over the text gives")
    return "\n".join(lines)


def _table(found: Mapping[str, Any], name: str) -> str:
    rows: Sequence[Mapping[str, Any]] = found[name]
    more = ("drafted", "of drafted") if name == "by_position" else ()
    cells = [[TABLES[name], *COLUMNS, *more]]
    for row in rows:
        line = [row["value"], f"{row['judged']:,}", _share(row["acceptance"]), _interval(row, "acceptance")]
        line += [f"{row['rejected']:,}", _share(row["share_of_rejections"]), f"{row['lost']:,}"]
        cells.append(line + ([f"{row['drafted']:,}", _share(row["accepted_of_drafted"])] if more else []))
    return "\n".join(aligned(cells))


def _pairs(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [["most often rejected", "full model's", "times", "in samples"]]
    for row in rows[:PAIRS_SHOWN]:
        cells.append([repr(row["draft"]), repr(row["full"]), f"{row['rejected']:,}", f"{row['n_samples']:,}"])
    return "\n".join(aligned(cells))


def _legend(found: Mapping[str, Any]) -> str:
    lines = [
        "accepted: of those judged; intervals over samples; lost: drafts after the rejected one, never judged.",
        f"{found['task']}, as {found['language']}: {found['n_samples']:,} samples, seed {found['seed']},"
        f" {found['new_tokens']:,.0f} new tokens on average; {found['hardware']}, {found['threads']} threads,"
        f" {found['dtype']}, torch {found['torch']}, commit {found['commit'][:12]}",
    ]
    return "\n".join(map(wrapped, lines))


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _interval(row: Mapping[str, Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "-" if low is None else f"[{low:.1%}, {high:.1%}]"
