"""Shares of a mixture are exact and even, every row of a source is taken once, and the order is a permutation."""

import numpy as np
import pytest

from data.batches.mixture import PERIOD, Mixture
from data.batches.shuffle import permuted


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 63, 64, 65, 1000, 4097])
def test_permuted_is_a_permutation_of_its_key(n: int) -> None:
    orders = [permuted(np.arange(n), n, (seed, epoch)) for seed in range(3) for epoch in range(2)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(n))
    if n > 60:
        assert len({tuple(order.tolist()) for order in orders}) == 6
    assert (permuted(np.arange(n)[::-1], n, (0, 0))[::-1] == orders[0]).all(), "each entry on its own"


def test_permuted_looks_random() -> None:
    """Against what a uniform permutation of 5,000 gives: neighbours, fixed points, displacement."""
    n = 5000
    for key in range(5):
        order = permuted(np.arange(n), n, (key,))
        assert (np.abs(np.diff(order)) == 1).sum() < 15  # 2 expected
        assert (order == np.arange(n)).sum() < 8  # 1 expected
        assert np.abs(order - np.arange(n)).mean() == pytest.approx(n / 3, rel=0.05)
        assert abs(np.corrcoef(order, np.arange(n))[0, 1]) < 0.06
    first = [int(permuted(np.array([0]), 8, (key,))[0]) for key in range(4000)]
    assert np.bincount(first, minlength=8).min() > 400  # 500 expected


def test_huge_orders_need_no_memory() -> None:
    n = 10**13
    rows = permuted(np.arange(1000), n, (1,))
    assert len(set(rows.tolist())) == 1000
    assert rows.max() > n // 2
    assert rows.max() < n


@pytest.mark.parametrize("weights", [[1.0], [0.7, 0.3], [5.0, 1.0, 1e-9], [1.0] * 7, [0.123, 4.56, 7.8]])
def test_every_row_of_a_source_once_and_shares_exact(weights: list[float]) -> None:
    mixture = Mixture(weights, seed=3)
    sources, numbers = mixture.locate(np.arange(2 * PERIOD))
    for s, weight in enumerate(weights):
        mine = numbers[sources == s]
        assert mine.tolist() == list(range(len(mine))), "in order, none left out"
        assert len(mine) >= 2
        assert len(mine) == pytest.approx(2 * PERIOD * weight / sum(weights), abs=2 * len(weights))
        # Evenly: after any 500 rows no source is more than a few rows off its share.
        so_far = np.cumsum(sources == s)[499::500]
        assert np.abs(so_far - weight / sum(weights) * np.arange(500, 2 * PERIOD + 1, 500)).max() < 6


def test_a_row_is_a_pure_function_of_its_number() -> None:
    rows = np.random.default_rng(0).integers(0, 5 * PERIOD, 300)
    whole = Mixture([2.0, 1.0], seed=1).locate(np.arange(5 * PERIOD))
    some = Mixture([2.0, 1.0], seed=1).locate(rows)
    assert (some[0] == whole[0][rows]).all()
    assert (some[1] == whole[1][rows]).all()
    assert (Mixture([2.0, 1.0], seed=2).locate(rows)[0] != some[0]).any()
