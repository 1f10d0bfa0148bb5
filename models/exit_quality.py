"""How well each exit predicts a text: the numbers, and the table that training and evaluation print."""

import math
from collections.abc import Iterable
from typing import NamedTuple


class ExitQuality(NamedTuple):
    """How well one exit predicts, over all tokens that were predicted."""

    exit_layer: int
    loss: float
    """Nats per token."""
    perplexity: float
    """exp(loss)."""
    bits_per_byte: float
    """Nats / ln 2 / bytes of text; the cost of </s> counts, its bytes are none."""
    agreement: float
    """Share of tokens whose most likely id is the one the last layer finds: greedy drafts that are accepted."""
    acceptance: float
    """Mean over tokens of sum_v min(p_L(v), q(v)): the chance that a draft which the exit draws is accepted."""


def exit_quality(
    exit_layer: int, *, nats: float, agreeing: float, accepted: float, n_tokens: float, n_bytes: float
) -> ExitQuality:
    """From sums over the tokens."""
    loss = nats / n_tokens
    bits_per_byte = nats / math.log(2) / max(n_bytes, 1.0)
    return ExitQuality(
        exit_layer, loss, math.exp(min(loss, 700.0)), bits_per_byte, agreeing / n_tokens, accepted / n_tokens
    )


def quality_table(rows: Iterable[ExitQuality]) -> str:
    """One line an exit, shallowest first; `vs last` is the perplexity beside that of the last."""
    rows = list(rows)
    lines = [
        f"{'exit_layer':>10} {'loss':>8} {'perplexity':>11} {'vs last':>8} {'bits/byte':>10}"
        f" {'agreement':>10} {'acceptance':>10}",
        *(
            f"{row.exit_layer:>10} {row.loss:>8.4f} {row.perplexity:>11.4g}"
            f" {row.perplexity / rows[-1].perplexity:>8.3f} {row.bits_per_byte:>10.4f}"
            f" {row.agreement:>10.1%} {row.acceptance:>10.1%}"
            for row in rows
        ),
    ]
    return "\n".join(lines)
