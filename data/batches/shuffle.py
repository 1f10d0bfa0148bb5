"""A random order of any length without storing it: a keyed permutation of 0..n-1, computed entry by entry."""

import numpy as np

ROUNDS = 6


def permuted(index: np.ndarray, n: int, key: tuple[int, ...]) -> np.ndarray:
    """Where the permutation of 0..n-1 chosen by a key sends each index [k] int64.

    A Feistel network over the smallest square power of two that holds n; what falls outside is sent on until it falls
    inside (cycle walking), which keeps it a permutation.
    """
    half = np.uint64(max(1, (max(1, n - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    keys = np.random.default_rng(key).integers(0, 2**64, ROUNDS, np.uint64)
    values = np.asarray(index, np.uint64).copy()
    outside = np.ones(len(values), bool)
    while outside.any():
        left, right = values[outside] >> half, values[outside] & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        values[outside] = (left << half) | right
        outside = values >= np.uint64(n)
    return values.astype(np.int64)


def _mixed(x: np.ndarray) -> np.ndarray:
    """A 64-bit finalizer: every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
