"""What self-speculation costs and gains, counted in blocks: a pass costs its blocks and its head, whatever its width.

E layers draft d tokens, L - E verify; per round n of them are accepted, and one token more is emitted.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from models.config import ModelConfig

MOST_DRAFTS = 16
"""Drafts per round that a prediction looks at; the paper takes up to 12."""


class Prediction(NamedTuple):
    """The setting that should be fastest."""

    speedup: float
    """Over autoregressive decoding; below 1 where no setting is faster."""
    exit_layer: int
    """E."""
    num_speculations: int
    """d."""


def head_cost(size: ModelConfig, vocabulary: int | None = None) -> float:
    """h, the cost of the LM head in units of a block, by multiplications per token.

    `vocabulary`: tokens that it predicts; None: all.
    """
    attention = size.head_dim * (2 * size.n_heads + 2 * size.kv_heads)
    return (vocabulary or size.vocab_size) / (attention + 3 * size.ffn_dim)


def ideal_speedup(
    *, n_layers: int, exit_layer: int, d: float, n: float, head: float, draft_head: float | None = None
) -> float:
    """(n + 1)(L + h) / (d(E + h') + L + h).

    Args:
        n_layers: L.
        exit_layer: E.
        d: tokens drafted per round, on average.
        n: tokens accepted per round, on average.
        head: h, cost of the head in units of a block.
        draft_head: h', that of the head that drafts go through; None: h.
    """
    draft = exit_layer + (head if draft_head is None else draft_head)
    return (n + 1) * (n_layers + head) / (d * draft + n_layers + head)


def expected_accepted(acceptance: float, d: int) -> float:
    """Drafts before the first that is rejected, if each is accepted with the same chance: n = a + a^2 + ... + a^d."""
    return sum(acceptance**i for i in range(1, d + 1))


class Replayed(NamedTuple):
    """The rounds that write a text, as expected."""

    rounds: float
    """With drafts."""
    drafted: float
    plain: float
    """Rounds without a draft, for want of room: of a last token."""


def replayed_rounds(chances: Sequence[float], d: int) -> Replayed:
    """How many rounds of d drafts write a text of which it is known how each token's draft would fare.

    Args:
        chances: for each token of the text, the chance that its draft is accepted if those before it are; greedy
            drafts, which are accepted for certain or not at all, make it an exact count.
        d: tokens drafted per round, fewer where the text ends before.
    """
    n = len(chances)
    # From each place to the end: what is left to do if a round begins there.
    left = [Replayed(0.0, 0.0, 0.0)] * (n + 1)
    for start in range(n - 1, -1, -1):
        width = min(d, n - start - 1)
        if not width:
            left[start] = Replayed(0.0, 0.0, 1.0)
            continue
        found, reached = [1.0, float(width), 0.0], 1.0
        for taken in range(width + 1):
            ends_here = reached * (1 - chances[start + taken]) if taken < width else reached
            for i, value in enumerate(left[start + taken + 1]):
                found[i] += ends_here * value
            reached -= ends_here
        left[start] = Replayed(*found)
    return left[0]


def predicted_best(acceptance: Mapping[int, float], n_layers: int, head: float) -> Prediction | None:
    """The best E and d for the chance a of each exit layer that a draft is accepted; None without one below L.

    a is the acceptance sum_v min(p_L(v), q_E(v)) for drafts that are drawn at temperature 1, and the agreement of the
    first choices for greedy ones, both as means over the tokens of a text rather than over what is generated.
    """
    return max(
        (
            Prediction(ideal_speedup(n_layers=n_layers, exit_layer=e, d=d, n=expected_accepted(a, d), head=head), e, d)
            for e, a in acceptance.items()
            if e < n_layers
            for d in range(1, MOST_DRAFTS + 1)
        ),
        default=None,
    )
