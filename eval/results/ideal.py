"""How fast decoding could be, from the measured time of each pass; models/speculation.py counts in blocks instead."""

from collections.abc import Sequence

from eval.measure.timing import PassTimes


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
