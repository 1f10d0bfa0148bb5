"""Best-fit packing: whole pieces, rows no fuller than full, and the same rows as the definition gives."""

import numpy as np
import pytest

from data.batches.best_fit import best_fit


def rows_of(lengths: np.ndarray, capacity: int) -> list[tuple[int, ...]]:
    order, row_ends = best_fit(lengths, capacity)
    assert order.dtype == row_ends.dtype == np.int64
    return [tuple(row.tolist()) for row in np.split(order, row_ends[:-1])] if len(row_ends) else []


def reference(lengths: np.ndarray, capacity: int) -> list[tuple[int, ...]]:
    """The definition, in quadratic time; `rows` is kept in the order in which rows were last added to."""
    rows: list[tuple[int, ...]] = []
    for piece in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fitting = [row for row in reversed(rows) if sum(lengths[list(row)]) + lengths[piece] <= capacity]
        fullest = max(fitting, key=lambda row: sum(lengths[list(row)]), default=())
        rows = [row for row in rows if row != fullest] + [(*fullest, piece)]
    return rows


def random_lengths(seed: int, n: int, capacity: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if seed % 2:
        return rng.integers(1, capacity + 1, n)
    return np.clip(rng.lognormal(np.log(capacity / 5), 1.0, n).astype(np.int64), 1, capacity)


def test_hand_example() -> None:
    # 7 and 6 begin rows with room 3 and 4; 4 fills the second, the first 3 the first; 3 2 2 1 share a third.
    order, row_ends = best_fit(np.array([2, 3, 7, 1, 4, 6, 3, 2]), 10)
    assert order.tolist() == [2, 1, 5, 4, 6, 0, 7, 3]
    assert row_ends.tolist() == [2, 4, 8]


def test_ties() -> None:
    # Three rows with room 4: the last begun is filled first.
    assert rows_of(np.array([6, 6, 6, 4, 4]), 10) == [(0,), (1, 4), (2, 3)]


@pytest.mark.parametrize("capacity", [1, 2, 7, 64, 100, 4096])
@pytest.mark.parametrize("seed", range(6))
def test_properties(seed: int, capacity: int) -> None:
    lengths = random_lengths(seed, 3000, capacity)
    rows = rows_of(lengths, capacity)
    assert sorted(piece for row in rows for piece in row) == list(range(len(lengths)))
    for row in rows:
        assert 0 < lengths[list(row)].sum() <= capacity
        assert list(row) == sorted(row, key=lambda i: (-lengths[i], i))
    firsts = [lengths[row[0]] for row in rows]
    assert firsts == sorted(firsts, reverse=True)
    assert rows_of(lengths.copy(), capacity) == rows


@pytest.mark.parametrize("capacity", [1, 5, 16, 64, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_same_rows_as_the_definition(seed: int, capacity: int) -> None:
    lengths = random_lengths(seed, 150, capacity)
    assert sorted(rows_of(lengths, capacity)) == sorted(reference(lengths, capacity))


def test_fill_rate() -> None:
    capacity = 4096
    lengths = np.clip(np.random.default_rng(0).lognormal(6.0, 1.2, 100_000).astype(np.int64), 1, capacity)
    _, row_ends = best_fit(lengths, capacity)
    assert lengths.sum() / (len(row_ends) * capacity) > 0.98


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint16, np.uint64])
def test_integer_types(dtype: type) -> None:
    lengths = random_lengths(0, 200, 100)
    assert rows_of(lengths.astype(dtype), 100) == rows_of(lengths, 100)


def test_edges() -> None:
    order, row_ends = best_fit(np.zeros(0, dtype=np.int64), 8)
    assert order.shape == row_ends.shape == (0,)
    assert order.dtype == row_ends.dtype == np.int64
    assert rows_of(np.full(5, 8), 8) == [(0,), (1,), (2,), (3,), (4,)]
    assert rows_of(np.array([3]), 8) == [(0,)]
    assert rows_of(np.ones(4, dtype=np.int64), 4) == [(0, 1, 2, 3)]


def test_input_is_left_alone() -> None:
    lengths = np.array([1, 3, 2])
    best_fit(lengths, 4)
    assert lengths.tolist() == [1, 3, 2]


@pytest.mark.parametrize(
    ("lengths", "capacity", "reason"),
    [
        (np.array([1, 0]), 4, r"lengths\[1\]=0"),
        (np.array([-1]), 4, "between 1 and capacity=4"),
        (np.array([1, 2, 5]), 4, r"lengths\[2\]=5"),
        (np.array([1.0]), 4, "integers"),
        (np.array([[1]]), 4, "integers"),
        (np.array([1]), 0, "capacity=0"),
    ],
)
def test_refused(lengths: np.ndarray, capacity: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        best_fit(lengths, capacity)
