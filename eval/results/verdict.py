"""What a benchmark says in the end: with which setting to decode, and how far that can be believed."""

from collections.abc import Sequence

from eval.config import Mode
from eval.results.columns import wrapped
from eval.results.row import Output, Row, fastest_drafting

REPEATING = 0.5
"""Share of distinct 4-grams below which more than half of a text has been there before."""
UNTRAINED = 0.2
"""Share of accepted drafts that trained exits reach; those of an ordinary Llama have a few percent."""


def verdict(rows: Sequence[Row]) -> str | None:
    """The fastest self-speculative setting, or that none is faster than autoregressive decoding; None if none was
    measured.
    """
    if (row := fastest_drafting(rows)) is None:
        return None
    rate, speedup = row.drafts.acceptance_rate, row.speed.speedup.value
    accepted = "" if rate is None else f", {rate:.0%} of the drafts accepted"
    speed = (
        f"{speedup:.2f} times the speed of autoregressive decoding ({row.speed.tokens_per_second:,.0f} tokens/s)"
        f"{accepted}{_output(row.output)}"
    )
    if speedup > 1:
        lines = [f"best: {row.setting.keys}: {speed}"]
    else:
        lines = [f"best: autoregressive decoding; no setting is faster. The best of them, {row.setting.keys}: {speed}"]
    if (most := _most_accepted(rows)) is not None and most < UNTRAINED:
        lines.append(
            f"this model shows no trained exits: of what the lower half of its layers drafts, at most {most:.0%} is"
            " accepted; training with layer dropout and early-exit loss gives it some"
        )
    if row.output.distinct_4grams < REPEATING:
        lines.append(
            f"the texts repeat themselves (only {row.output.distinct_4grams:.0%} of their 4-grams are different): a"
            " speed-up on such text says little about other text"
        )
    return "\n".join(map(wrapped, lines))


def _output(output: Output) -> str:
    if output.identical_output is None:
        return ""
    ties = f" but for {output.near_ties} near-ties" if output.near_ties else ""
    return f", {'identical output' if output.identical_output else 'OUTPUT THAT DIFFERS'}{ties}"


def _most_accepted(rows: Sequence[Row]) -> float | None:
    """The largest acceptance rate of exits in the lower half; higher ones agree with the last without any training."""
    n_layers = next(row.setting.exit_layer for row in rows if row.mode == Mode.autoregressive)
    rates = [
        row.drafts.acceptance_rate
        for row in rows
        if row.mode == Mode.self_speculative and 0 < 2 * row.setting.exit_layer <= n_layers
    ]
    return max((rate for rate in rates if rate is not None), default=None)
