"""Texts side by side, summed up over prompts: for the terminal and the page."""

from collections.abc import Sequence
from dataclasses import dataclass

from eval.engine.policy import Drafting
from eval.exactness.side_by_side import Side
from eval.results.columns import aligned
from eval.setting import Setting


@dataclass(frozen=True, kw_only=True)
class ModeRow:
    """One way to decode, over all prompts. The page shows the fields by their names."""

    mode: str
    """Label of its setting."""
    tokens_per_second: float
    layers_per_token: float
    acceptance: float | None
    """Accepted share of the drafts; None where nothing was drafted."""
    same: int
    """Texts that are autoregressive decoding's."""
    near_ties: int
    n_prompts: int


def mode_rows(results: Sequence[Sequence[Side]], n_layers: int) -> list[ModeRow]:
    """A row for each way to decode; `results` has the sides of every prompt, in the same order."""
    rows = []
    for sides in zip(*results, strict=True):
        rounds = [r for side in sides for r in side.run.rounds]
        n_tokens = sum(len(r.tokens) for r in rounds)
        n_drafted = sum(r.n_drafted for r in rounds)
        rows.append(
            ModeRow(
                mode=Setting.of(sides[0].policy, n_layers).label,
                tokens_per_second=n_tokens / sum(side.run.seconds for side in sides),
                layers_per_token=sum(side.layers_per_token * len(side.run.tokens) for side in sides) / n_tokens,
                acceptance=sum(r.n_accepted for r in rounds) / n_drafted if n_drafted else None,
                same=sum(side.differs_at is None for side in sides),
                near_ties=sum(side.near_tie for side in sides),
                n_prompts=len(sides),
            )
        )
    return rows


def mode_table(rows: Sequence[ModeRow]) -> str:
    """The rows as text."""
    cells = [["mode", "tokens/s", "layers/token", "accepted", "same text as autoregressive"]]
    for i, row in enumerate(rows):
        cells.append(
            [
                row.mode,
                f"{row.tokens_per_second:,.{0 if row.tokens_per_second >= 10 else 1}f}",
                f"{row.layers_per_token:.1f}",
                "-" if row.acceptance is None else f"{row.acceptance:.0%}",
                f"{row.same} of {row.n_prompts}" + _ties(row.near_ties) if i else "-",
            ]
        )
    return "\n".join(aligned(cells))


def unexplained_sides(results: Sequence[Sequence[Side]]) -> list[str]:
    """Where self-speculation, which must not differ, differs and rounding does not explain it."""
    return [
        f"prompt {i}: self-speculation differs from autoregressive decoding at token {side.differs_at + 1}, and not by"
        " rounding"
        for i, sides in enumerate(results, 1)
        for side in sides
        if isinstance(side.policy, Drafting) and side.differs_at is not None and not side.near_tie
    ]


def _ties(n: int) -> str:
    return f", {n} near-tie{'s' if n > 1 else ''}" if n else ""
