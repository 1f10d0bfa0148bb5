"""Best-fit-decreasing bin packing (Ding et al. 2024, "Fewer truncations improve language modeling", 2404.10830)."""

import numpy as np


def best_fit(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Pack pieces whole into rows: longest first, each into the fullest row it still fits, else into a new one.

    `lengths` [N] are integers from 1 to `capacity`, else ValueError. Returns (`order` [N], `row_ends` [R]), both int64:
    row r holds the pieces `order[row_ends[r - 1]:row_ends[r]]` (from 0 for r = 0), each row's lengths sum to at most
    `capacity`, and every piece is in one row. Rows come in the order they were begun, so sorted by their longest piece,
    and pieces within a row from long to short. Equally long pieces are placed by index; of equally full rows, the one
    added to last is taken. A piece costs a few operations on an integer of `capacity` bits.
    """
    _check(lengths, capacity)
    lengths = lengths.astype(np.int64)  # unsigned ones cannot be negated to sort them
    longest_first = np.argsort(-lengths, kind="stable")
    row_of = np.asarray(_assign(lengths[longest_first].tolist(), capacity), dtype=np.int64)
    order = longest_first[np.argsort(row_of, kind="stable")]
    return order.astype(np.int64), np.cumsum(np.bincount(row_of), dtype=np.int64)


def _assign(lengths: list[int], capacity: int) -> list[int]:
    """The row of each piece, in the order given."""
    rows_with: list[list[int]] = [[] for _ in range(capacity)]  # by room left; full rows are forgotten
    rooms = 0  # bit i is set where rows_with[i] has rows: the lowest bit from `length` up is the best fit
    n_rows = 0
    row_of = []
    for length in lengths:
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = rows_with[room].pop()
            if not rows_with[room]:
                rooms ^= 1 << room
        else:
            room, row = capacity, n_rows
            n_rows += 1
        row_of.append(row)
        left = room - length
        if left:
            rows_with[left].append(row)
            rooms |= 1 << left
    return row_of


def _check(lengths: np.ndarray, capacity: int) -> None:
    if capacity < 1:
        raise ValueError(f"capacity={capacity}: must be at least 1")
    if lengths.ndim != 1 or not np.issubdtype(lengths.dtype, np.integer):
        raise ValueError(f"lengths: {lengths.dtype} {list(lengths.shape)}, must be integers [N]")
    outside = np.flatnonzero((lengths < 1) | (lengths > capacity))
    if len(outside):
        raise ValueError(f"lengths[{outside[0]}]={lengths[outside[0]]}: must be between 1 and capacity={capacity}")
