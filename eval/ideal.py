"""How fast self-speculation could be: counted in blocks, and from the measured time of each pass.

E layers draft d tokens, L - E verify; per round n of them are accepted, and one token more is emitted.
"""

from collections.abc import Sequence
from typing import NamedTuple


def ideal_speedup(*, n_layers: int, exit_layer: int, d: float, n: float, head: float, looked: float = 0.0) -> float:
    """(n + 1)(L + h) / (d(E + h) + L + h): every pass costs its blocks and its head, whatever its width.

    Args:
        n_layers: L.
        exit_layer: E.
        d: tokens drafted per round, on average.
        n: tokens accepted per round, on average.
        head: h, cost of the head in units of a block.
        looked: share of the rounds whose draft ended on low confidence, which takes one head more.
    """
    return (n + 1) * (n_layers + head) / (d * (exit_layer + head) + looked * head + n_layers + head)


class PassTimes(NamedTuple):
    """Median seconds of each kind of pass of a policy, each at its own width, beside plain decoding's."""

    plain_prefill: float
    """The prompt through all layers, and a head."""
    plain_token: float
    """One token through all layers and the head."""
    prefill: float
    """The prompt through the layers this policy prefills, and a head."""
    draft: float
    """One token through the first E layers and the head."""
    last_draft: float
    """One token through the first E layers: the last drafted one, of which only keys and exit state are needed."""
    verify: tuple[float, ...]
    """At index w - 1: w exit states through the other layers, and the head on all of them."""


class Passes(NamedTuple):
    """What a round after the prefill consists of."""

    drafts: int
    last_drafts: int
    verify: int
    """Width of the verification; 0 without one."""

    def seconds(self, times: PassTimes) -> float:
        """If nothing but the passes took time."""
        verify = times.verify[self.verify - 1] if self.verify else 0.0
        return self.drafts * times.draft + self.last_drafts * times.last_draft + verify


def measured_cost_ideal(times: PassTimes, n_tokens: int, rounds: Sequence[Passes]) -> float:
    """Speed-up over plain decoding of `n_tokens` tokens if nothing but the passes took time."""
    plain = times.plain_prefill + (n_tokens - 1) * times.plain_token
    return plain / (times.prefill + sum(r.seconds(times) for r in rounds))
