"""Long series cut down to what a screen can show, without losing a peak or a dip."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np


def thinned(steps: Sequence[int], values: Sequence[float], n: int) -> tuple[list[int], list[float]]:
    """At most about n points of a series, in order: first and last, and the least and the greatest of each part.

    Args:
        steps: ascending.
        values: one for each step; those that are not finite are left out.
        n: how many points to keep; a series with no more is kept whole.
    """
    x, y = np.asarray(steps, dtype=np.int64), np.asarray(values, dtype=np.float64)
    finite = np.isfinite(y)
    x, y = x[finite], y[finite]
    kept = _extremes(x, y, n)
    return x[kept].tolist(), y[kept].tolist()


def thinned_rows(steps: Sequence[int], deciding: Sequence[float], n: int) -> list[int]:
    """Which rows of a table with one row for each step to keep, by the extremes of one column."""
    y = np.asarray(deciding, dtype=np.float64)
    return _extremes(np.asarray(steps, dtype=np.int64), np.where(np.isfinite(y), y, np.inf), n).tolist()


def _extremes(x: np.ndarray, y: np.ndarray, n: int) -> np.ndarray:
    if len(x) <= n:
        return np.arange(len(x))
    # Parts of equal width on the axis of steps, as pixels are; each has two points.
    edges = np.linspace(x[0], x[-1], max(2, n // 2) + 1)[1:-1]
    bounds = [0, *np.searchsorted(x, edges).tolist(), len(x)]
    kept = {0, len(x) - 1}
    for start, end in pairwise(bounds):
        if end > start:
            kept |= {start + int(y[start:end].argmin()), start + int(y[start:end].argmax())}
    return np.array(sorted(kept))


def rounded(value: float, digits: int = 5) -> float:
    """With so many digits, which is more than a screen shows."""
    return float(f"{value:.{digits}g}")
