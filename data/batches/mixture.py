"""Which source each training row comes from: a pure function of (weights, seed, number of the row).

Rows are numbered in the order in which all ranks together take them. In every period of 10,000 rows each source has its
share, spread evenly and in an order of the period's own.
"""

from collections.abc import Sequence

import numpy as np

PERIOD = 10_000


class Mixture:
    """Numbers of rows to (source, number of the row within that source)."""

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        """`weights` [S] > 0, relative. A share is a multiple of 1/10,000, and at least that."""
        self.seed = seed
        self.quotas = _quotas(np.asarray(weights, np.float64))
        self._period = -1
        self._sources = np.empty(0, np.int64)
        self._before = np.empty(0, np.int64)

    def locate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(source [k], number within the source [k]) of rows [k], int64."""
        if len(self.quotas) == 1:
            return np.zeros(len(rows), np.int64), np.asarray(rows, np.int64)
        sources, numbers = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        for i, row in enumerate(rows.tolist()):
            period, at = divmod(row, PERIOD)
            self._open(period)
            source = self._sources[at]
            sources[i] = source
            numbers[i] = period * self.quotas[source] + self._before[at]
        return sources, numbers

    def _open(self, period: int) -> None:
        if period == self._period:
            return
        rng = np.random.default_rng((self.seed, 1, period))
        # The k-th of a source's n rows falls into the k-th n-th of the period.
        at = np.concatenate([(np.arange(n) + rng.random(n)) / n for n in self.quotas])
        source = np.repeat(np.arange(len(self.quotas)), self.quotas)[np.argsort(at, kind="stable")]
        self._before = np.empty(PERIOD, np.int64)
        for s in range(len(self.quotas)):
            chosen = source == s
            self._before[chosen] = np.arange(chosen.sum())
        self._sources, self._period = source, period


def _quotas(weights: np.ndarray) -> np.ndarray:
    """Rows of each source in a period: largest remainders, at least one."""
    exact = weights / weights.sum() * PERIOD
    quotas = np.maximum(1, np.floor(exact)).astype(np.int64)
    while (missing := PERIOD - int(quotas.sum())) != 0:
        step = 1 if missing > 0 else -1
        error = (exact - quotas) * step
        if step < 0:
            error[quotas == 1] = -np.inf
        quotas[int(np.argmax(error))] += step
    return quotas
