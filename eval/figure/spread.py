"""The mean over the seeds of an arm, and how far they lie apart."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from eval.figure.config import Spread
from eval.results.bootstrap import Estimate


class Band(NamedTuple):
    """A mean with its spread; of one value all three are that value."""

    mean: float
    low: float
    high: float
    n: int
    """Seeds."""

    @property
    def estimate(self) -> Estimate:
        """Mean and ends."""
        return Estimate(self.mean, self.low, self.high)

    def text(self, form: str) -> str:
        """The mean, and the ends behind it where there are any, each in a format such as `.2f`."""
        mean, low, high = (format(value, form) for value in self[:3])
        return mean if self.low == self.high else f"{mean} [{low}, {high}]"

    def exp(self) -> "Band":
        """Of losses in nats per token: the perplexities."""
        mean, low, high = (math.exp(min(value, 700.0)) for value in self[:3])
        return Band(mean, low, high, self.n)


def band(values: Sequence[float], spread: Spread) -> Band:
    """Of the values of one arm, a value for each seed."""
    mean = fmean(values)
    if len(values) == 1:
        return Band(mean, mean, mean, 1)
    if spread is Spread.std:
        return Band(mean, mean - stdev(values), mean + stdev(values), len(values))
    return Band(mean, min(values), max(values), len(values))


def bands(series: Sequence[Mapping[int, float]], spread: Spread) -> dict[int, Band]:
    """By key (a step, an exit layer), for the keys that every seed has, ascending."""
    shared = set.intersection(*(set(values) for values in series))
    return {key: band([values[key] for values in series], spread) for key in sorted(shared)}


def in_words(spread: Spread, counts: Sequence[int]) -> str:
    """What a caption says of the bands of arms with so many seeds each."""
    if max(counts) == 1:
        return "one seed per arm"
    n = f"n = {counts[0]}" if len(set(counts)) == 1 else "n in the legend"
    what = "smallest to largest" if spread is Spread.min_max else "± one sample standard deviation"
    return f"mean over seeds ({n}), band: {what}"
