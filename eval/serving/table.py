"""Rows of the comparison, for files and the screen, and whether the engines do what is expected of them."""

from dataclasses import dataclass
from typing import Any

from eval.results.columns import aligned, wrapped
from eval.results.table import cell, same_cell
from eval.serving.served import DRAFTED, OURS, PLAIN, Served, Way


@dataclass(frozen=True, kw_only=True)
class ServedRow:
    """One way to decode."""

    system: str
    mode: str
    version: str
    exit_layer: int
    """0 where nothing is drafted, like num_speculations."""
    num_speculations: int
    tokens_per_second: float
    speedup: float
    """Over the same engine's plain decoding."""
    drafted: int
    accepted: int
    acceptance_rate: float | None
    predicted_acceptance_rate: float | None
    """That of our self-speculation with the same E and d on the same prompts."""
    acceptance_as_predicted: bool | None
    """Whether they differ by no more than the drafts of a round of each text, which engines count differently."""
    identical_output: bool
    """Whether all texts are our plain decoding's, or part from them at a near-tie."""
    identical_share: float
    near_ties: int
    start_seconds: float


def served_rows(found: Served) -> list[ServedRow]:
    """A row for each way, ours first."""
    ours, rows = found.ways[Way(OURS, DRAFTED)], []
    for way, its in found.ways.items():
        drafts = way.mode == DRAFTED
        rate = its.accepted / its.drafted if drafts and its.drafted else None
        predicted = ours.accepted / ours.drafted if drafts and ours.drafted else None
        slack = found.num_speculations * its.same.n_texts
        as_predicted = abs(its.accepted - ours.accepted) <= slack and abs(its.drafted - ours.drafted) <= slack
        rows.append(
            ServedRow(
                system=way.system,
                mode=way.mode,
                version=its.answer.version,
                exit_layer=found.exit_layer if drafts else 0,
                num_speculations=found.num_speculations if drafts else 0,
                tokens_per_second=its.tokens_per_second,
                speedup=its.tokens_per_second / found.ways[Way(way.system, PLAIN)].tokens_per_second,
                drafted=its.drafted,
                accepted=its.accepted,
                acceptance_rate=rate,
                predicted_acceptance_rate=predicted,
                acceptance_as_predicted=as_predicted if drafts else None,
                identical_output=its.same.holds,
                identical_share=its.same.identical / its.same.n_texts,
                near_ties=its.same.near_ties,
                start_seconds=its.answer.start_seconds,
            )
        )
    return rows


def failures(rows: list[ServedRow]) -> list[str]:
    """What is not as it must be, in words."""
    wrong = [f"{row.system} {row.mode} writes other texts" for row in rows if not row.identical_output]
    return wrong + [
        f"{row.system} accepts {row.accepted:,} of {row.drafted:,} drafts, other than predicted"
        for row in rows
        if row.acceptance_as_predicted is False
    ]


def served_table(rows: list[ServedRow], facts: dict[str, Any]) -> str:
    """The rows as text, with a legend."""
    cells = [["system", "mode", "E", "d", "tokens/s", "over own plain", "accepted", "of", "rate", "predicted", "same"]]
    for row in rows:
        same = same_cell(row.identical_output, row.near_ties)
        drafts = [f"{row.accepted:,}", f"{row.drafted:,}"] if row.exit_layer else ["-", "-"]
        numbers = [cell(row.exit_layer or None), cell(row.num_speculations or None), f"{row.tokens_per_second:,.0f}"]
        rates = [cell(row.acceptance_rate, 3), cell(row.predicted_acceptance_rate, 3)]
        cells.append([row.system, row.mode, *numbers, f"{row.speedup:.2f}", *drafts, *rates, same])
    legend = (
        "tokens/s: the median text, its prompt's pass included; predicted: the rate of our self-speculation with the"
        " same E and d; same: our plain decoding's texts, or but for near-ties."
    )
    machine = f"{facts['hardware']}, {facts['threads']} threads, {facts['dtype']}; commit {facts['commit']}"
    versions = ", ".join(dict.fromkeys(row.version for row in rows))
    what = f"{facts['checkpoint']}, {facts['task']}, {facts['n_texts']} texts; {machine}; {versions}"
    return "\n".join([*aligned(cells, n_names=2), wrapped(legend), wrapped(what)])
