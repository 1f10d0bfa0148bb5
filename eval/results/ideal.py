"""How fast self-speculation could be: counted in blocks, and from the measured time of each pass.

E layers draft d tokens, L - E verify; per round n of them are accepted, and one token more is emitted.
"""

from collections.abc import Sequence

from eval.measure.timing import PassTimes


def ideal_speedup(*, n_layers: int, exit_layer: int, d: float, n: float, head: float) -> float:
    """(n + 1)(L + h) / (d(E + h) + L + h): every pass costs its blocks and its head, whatever its width.

    Args:
        n_layers: L.
        exit_layer: E.
        d: tokens drafted per round, on average.
        n: tokens accepted per round, on average.
        head: h, cost of the head in units of a block.
    """
    return (n + 1) * (n_layers + head) / (d * (exit_layer + head) + n_layers + head)


def measured_cost_ideal(times: PassTimes, n_tokens: int, drafts: Sequence[int]) -> float:
    """Speed-up over autoregressive decoding of `n_tokens` tokens if nothing but the passes took time.

    Args:
        times: of the passes.
        n_tokens: that autoregressive decoding generates.
        drafts: tokens drafted in each round after the prefill; 0 where there was no room for a draft, which takes a
            plain token.
    """
    autoregressive = times.autoregressive_prefill + (n_tokens - 1) * times.autoregressive_token
    rounds = sum(d * times.draft + times.last_draft + times.verify if d else times.autoregressive_token for d in drafts)
    return autoregressive / (times.prefill + rounds)


def early_exit_ideal(times: PassTimes, n_tokens: int) -> float:
    """The ideal speed-up of early exit, all of whose tokens are drafts."""
    autoregressive = times.autoregressive_prefill + (n_tokens - 1) * times.autoregressive_token
    return autoregressive / (times.prefill + (n_tokens - 1) * times.draft)
