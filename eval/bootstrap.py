"""95 % intervals by drawing samples anew, with a fixed seed."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

DRAWS = 1000
LEVEL = 0.95


class Estimate(NamedTuple):
    """A number, and the interval that it lies in."""

    value: float
    low: float
    high: float


def estimate(units: object, statistic: Callable[[np.ndarray], float], *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """A statistic of independent units, and the percentiles of it over samples of as many units with repetition.

    Args:
        units: [n] or [n, k] numbers, n at least 1.
        statistic: of such an array.
        draws: how many samples.
        seed: of the draws.
    """
    array = np.asarray(units, dtype=np.float64)
    rng = np.random.default_rng(seed)
    n = len(array)
    drawn = [statistic(array[rng.integers(n, size=n)]) for _ in range(draws)]
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Estimate(float(statistic(array)), float(low), float(high))


def mean(units: np.ndarray) -> float:
    """Of [n]."""
    return float(units.mean())


def median(units: np.ndarray) -> float:
    """Of [n]."""
    return float(np.median(units))


def ratio_of_means(units: np.ndarray) -> float:
    """Mean of the first column of [n, 2] by that of the second."""
    return float(units[:, 0].mean() / units[:, 1].mean())
