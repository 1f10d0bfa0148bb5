"""95 % intervals by drawing samples anew, with a fixed seed; and quartiles."""

from collections.abc import Callable, Sequence
from statistics import quantiles
from typing import NamedTuple

import numpy as np

Statistic = Callable[[np.ndarray], np.ndarray]
"""[draws, n] or [draws, n, k] -> [draws]."""

DRAWS = 1000
LEVEL = 0.95


class Estimate(NamedTuple):
    """A number, and the interval that it lies in."""

    value: float
    low: float
    high: float


def estimate(
    units: Sequence[float] | Sequence[tuple[float, float]], statistic: Statistic, *, draws: int = DRAWS, seed: int = 0
) -> Estimate:
    """A statistic of n >= 1 independent units, and percentiles of it over draws of n units with repetition.

    Args:
        units: [n] numbers, or [n, k] of them.
        statistic: see `Statistic`.
        draws: how many.
        seed: of the draws.
    """
    array, rng = np.asarray(units, dtype=np.float64), np.random.default_rng(seed)
    n, found = len(array), []
    at_a_time = max(1, 1_000_000 // n)
    for first in range(0, draws, at_a_time):
        found.append(statistic(array[rng.integers(n, size=(min(at_a_time, draws - first), n))]))
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(np.concatenate(found), [tail, 100 - tail])
    return Estimate(float(statistic(array[None])[0]), float(low), float(high))


def mean(drawn: np.ndarray) -> np.ndarray:
    """The mean of each draw of [draws, n]."""
    return np.asarray(drawn.mean(axis=1))


def median(drawn: np.ndarray) -> np.ndarray:
    """The median of each draw of [draws, n]."""
    return np.asarray(np.median(drawn, axis=1))


def ratio_of_means(drawn: np.ndarray) -> np.ndarray:
    """Mean of the first column by that of the second, of [draws, n, 2]."""
    means = drawn.mean(axis=1)
    return np.asarray(means[:, 0] / means[:, 1])


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The lower and the upper quartile of at least one number."""
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3
    return low, high
