"""A benchmark's rows on the screen and in files."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.files import write_whole
from eval.results.bootstrap import Estimate
from eval.results.columns import aligned, wrapped
from eval.results.csv_file import write_csv
from eval.results.row import Part, Row, flat_part


class Column(NamedTuple):
    """One number of each row."""

    heading: str
    text: Callable[[Row], str]


MODE = Column("mode", lambda row: row.mode)
EXIT = Column("E", lambda row: str(row.setting.exit_layer or "-"))
NUM_SPECULATIONS = Column("d", lambda row: str(row.setting.num_speculations or "-"))
POLICY = Column("policy", lambda row: cell(row.setting.policy))
STATES = Column("exit states", lambda row: cell(row.setting.exit_states))
SPEED = (
    Column("tokens/s", lambda row: cell(row.speed.tokens_per_second, 0)),
    Column("accepted", lambda row: cell(row.drafts.acceptance_rate)),
    Column("per round", lambda row: cell(row.drafts.tokens_per_round)),
)
QUARTILES = (
    Column("q25", lambda row: cell(row.speed.speedup_q25)),
    Column("q75", lambda row: cell(row.speed.speedup_q75)),
)
IDEALS = (
    Column("ideal", lambda row: cell(row.ideals.ideal_speedup)),
    Column("measured", lambda row: cell(row.ideals.measured_cost_ideal)),
    Column("share", lambda row: cell(row.ideals.share_of_measured_cost_ideal)),
    Column("same", lambda row: _same(row)),
    Column("4-grams", lambda row: cell(row.output.distinct_4grams)),
)


def benchmark_table(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """The rows as text, with a legend; with metrics intervals stand beside what is estimated."""
    text = interval if metrics else _value
    columns = [*_setting(rows), *(_metric(name) for name in metrics), *SPEED]
    columns.append(Column("speed-up", lambda row: text(row.speed.speedup)))
    columns += [Column("of means", lambda row: text(row.speed.speedup_of_means))] if metrics else QUARTILES
    if rows[0].over_baseline:
        columns.append(
            Column(
                "over baseline",
                lambda row: text(row.over_baseline.speedup_over_baseline if row.over_baseline else None),
            )
        )
    columns += IDEALS
    cells = [[column.text(row) for column in columns] for row in rows]
    lines = aligned([[column.heading for column in columns], *cells], n_names=len(_setting(rows)))
    return "\n".join([*lines, *map(wrapped, _legend(rows[0], bool(metrics)))])


def _setting(rows: Sequence[Row]) -> list[Column]:
    """The columns that name a setting; those that never differ are left out."""
    states = [STATES] if any(r.setting.exit_states == "recompute" for r in rows) else []
    return [MODE, EXIT, NUM_SPECULATIONS, *([POLICY] if any(r.setting.policy for r in rows) else []), *states]


def _metric(name: str) -> Column:
    return Column(name, lambda row: interval(row.metrics.get(name), 3))


def _same(row: Row) -> str:
    """Whether the texts are autoregressive decoding's."""
    if row.output.identical_output and (ties := row.output.near_ties):
        return f"{ties} tie{'s' if ties > 1 else ''}"
    return cell(row.output.identical_output)


def cell(value: object, digits: int = 2) -> str:
    """A value as text."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.{digits}f}" if isinstance(value, float) else str(value)


def same_cell(identical: bool, near_ties: int) -> str:
    """Whether texts are the same, or so but for some near-ties, as text."""
    return f"{near_ties} ties" if identical and near_ties else cell(identical)


def interval(found: Estimate | None, digits: int = 2) -> str:
    """An estimate with its interval as text."""
    if found is None:
        return "-"
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def _value(found: Estimate | None) -> str:
    return cell(found and found.value)


def _legend(autoregressive: Row, intervals: bool) -> list[str]:
    beside = "of means: the paper's, ratio of mean times per token" if intervals else "with quartiles"
    lines = [
        f"E: layers of draft or exit; d: tokens drafted per round; speed-up over autoregressive: median of pairs,"
        f" {beside}; ideal: by blocks and head; measured: by the measured time of each pass, and the share of"
        " it that was reached; same: autoregressive's text, or but for so many near-ties;"
        " 4-grams: share that are distinct." + (" [ ]: 95 % intervals." if intervals else ""),
    ]
    counts, theirs = autoregressive.counts, autoregressive.transformers
    each = f", {counts.repeats} times each" if counts.repeats > 1 else ""
    together = autoregressive.facts.batch_size
    each += f", {together} at a time" if together > 1 else ""
    chosen = f"tokens chosen with {how}; " if (how := autoregressive.facts.sampling) else ""
    each += ", compiled" if autoregressive.facts.compiled else ""
    if n := autoregressive.facts.draft_vocab:
        each += f", drafts from {n:,} tokens of the vocabulary"
    lines.append(
        f"{counts.task}: {counts.n_samples} samples, seed {counts.seed}{each}; {chosen}"
        f"prompts of {counts.prompt_tokens:,.0f} tokens and {counts.new_tokens:,.0f} new ones on average;"
        f" {autoregressive.facts.provenance}"
    )
    if reading := autoregressive.bandwidth:
        lines.append(
            f"autoregressive reads {reading.weight_mb_per_token:,.1f} MB of weights per token at"
            f" {reading.share_of_bandwidth:.2f} of the {reading.bandwidth_gb_per_second:.1f} GB/s at which a"
            " matrix-vector product reads as many bytes"
        )
    if theirs:
        lines.append(
            f"autoregressive is {theirs.speedup_over_transformers:.2f} times as fast as generate of transformers"
            f" {autoregressive.facts.transformers} ({theirs.transformers_tokens_per_second:,.0f} tokens/s);"
            f" same text in {theirs.same_as_transformers:.0%}"
        )
    return lines


def details(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """A table for each breakdown: a line per setting and part."""
    breakdowns: list[tuple[str, list[Sequence[Part]]]] = [
        ("by group", [row.by_group for row in rows]),
        ("by prompt length", [row.by_prompt_length for row in rows]),
        ("by position", [row.by_position for row in rows]),
    ]
    return "\n\n".join(text for title, parts in breakdowns if (text := _breakdown(title, rows, parts, metrics)))


def _breakdown(title: str, rows: Sequence[Row], parts: Sequence[Sequence[Part]], metrics: Sequence[str]) -> str:
    """The parts of each row; of their metrics those that are asked for."""
    shown: list[tuple[Row, dict[str, Any]]] = [
        (row, flat_part(part)) for row, its in zip(rows, parts, strict=True) for part in its
    ]
    if not shown:
        return ""
    names = dict.fromkeys(name for _, part in shown for name in part)
    columns = [name for name in names if name in metrics or name not in rows[0].metrics]
    setting = _setting(rows)
    lines = [[*(column.heading for column in setting), *columns]]
    for row, part in shown:
        values = (cell(part.get(name), 3 if name in metrics else 2) for name in columns)
        lines.append([*(column.text(row) for column in setting), *values])
    return "\n".join([title, *aligned(lines, n_names=len(setting) + 1)])


def save_rows(rows: Sequence[Mapping[str, object]], path: Path) -> Path:
    """Write rows as JSON and, without lists, as CSV beside it; its path. A kill leaves no half file."""
    write_whole(path, (json.dumps(rows, indent=1) + "\n").encode())
    flat = [{k: v for k, v in row.items() if not isinstance(v, list)} for row in rows]
    write_csv(out := path.with_suffix(".csv"), flat)
    return out
