"""The numbers of `eval.rejections` as text and in files."""

import json
from collections.abc import Sequence
from pathlib import Path

from data.files import write_whole
from eval.drafts.findings import DraftPositionPart, DraftsPart, Rejections, TokenPair
from eval.results.bootstrap import Estimate
from eval.results.columns import aligned, wrapped
from eval.results.csv_file import write_csv
from eval.results.row import flat_part

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


def report(found: Rejections, *, detail: bool) -> str:
    """What became of the drafts, the tables, the most frequent pairs; `detail` for every table."""
    parts = found.breakdowns.by_name()
    tables = [_table(name, parts[name]) for name in (TABLES if detail else SHORT)]
    return "\n\n".join([_heading(found), *tables, _pairs(found.pairs), _legend(found)])


def save_rejections(found: Rejections, path: Path) -> Path:
    """Write all as JSON and the tables as one CSV beside it; its path. A kill leaves no half file."""
    write_whole(path, (json.dumps(found.as_json(), indent=1) + "\n").encode())
    parts = found.breakdowns.by_name()
    rows = [{"table": name, **flat_part(part)} for name in TABLES for part in parts[name]]
    write_csv(out := path.with_suffix(".csv"), rows, first=["table"])
    return out


def _heading(found: Rejections) -> str:
    setting, totals = found.setting, found.totals
    lines = [
        f"E={setting.exit_layer} of {setting.n_layers} layers, d={setting.num_speculations}: {totals.drafted:,}"
        f" tokens drafted in {totals.rounds:,} rounds",
    ]
    if totals.drafted:
        never = totals.after_rejection + totals.after_end
        lines += [
            f"{totals.accepted:,} accepted, {totals.rejected:,} rejected, {never:,} never judged"
            f" ({totals.after_rejection:,} after a rejection, {totals.after_end:,} after the text's end)",
            f"accepted of all drafted {_with_interval(totals.acceptance_rate)}, of"
            f" those judged {_with_interval(totals.acceptance)}",
        ]
    if totals.near_ties:
        lines.append(f"near-ties: {totals.near_ties:,} (one pass over the text says otherwise, within rounding)")
    if totals.unexplained:
        lines.append(f"ERROR: {totals.unexplained:,} drafts are not what one pass over the text gives")
    return "\n".join(lines)


def _table(name: str, parts: Sequence[DraftsPart]) -> str:
    more = ("drafted", "of drafted") if name == "by_position" else ()
    cells = [[TABLES[name], *COLUMNS, *more]]
    for part in parts:
        line = [part.value, f"{part.judged:,}", _share(part.acceptance.value), _interval(part.acceptance)]
        line += [f"{part.rejected:,}", _share(part.share_of_rejections), f"{part.lost:,}"]
        if isinstance(part, DraftPositionPart):
            line += [f"{part.drafted:,}", _share(part.accepted_of_drafted)]
        cells.append(line)
    return "\n".join(aligned(cells))


def _pairs(pairs: Sequence[TokenPair]) -> str:
    cells = [["most often rejected", "full model's", "times", "in samples"]]
    for pair in pairs[:PAIRS_SHOWN]:
        cells.append([repr(pair.draft), repr(pair.full), f"{pair.rejected:,}", f"{pair.n_samples:,}"])
    return "\n".join(aligned(cells))


def _legend(found: Rejections) -> str:
    setting = found.setting
    lines = [
        "accepted: of those judged; intervals over samples; lost: drafts after the rejected one, never judged.",
        f"{setting.task}, as {setting.language}: {setting.n_samples:,} samples, seed {setting.seed},"
        f" {found.new_tokens:,.0f} new tokens on average; {found.provenance}",
    ]
    return "\n".join(map(wrapped, lines))


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _interval(found: Estimate) -> str:
    return f"[{found.low:.1%}, {found.high:.1%}]"


def _with_interval(found: Estimate | None) -> str:
    return "- -" if found is None else f"{_share(found.value)} {_interval(found)}"
