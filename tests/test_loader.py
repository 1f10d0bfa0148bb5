"""Packed rows lose nothing; the loader's position is exact, over ranks, workers and resumes."""

import itertools

import numpy as np
import pytest
import torch

from data.loader import PackedLoader, validation_batches
from data.packing import IGNORE_INDEX, PackedRows

TOKENS = np.arange(1, 1000, dtype=np.uint16)


def rows(seq_len: int = 16, n: int = 999) -> PackedRows:
    return PackedRows(TOKENS[:n], seq_len, fill_id=0)


@pytest.mark.parametrize("n", [2, 16, 17, 18, 33, 999])
def test_every_token_but_the_first_is_a_label_once(n: int) -> None:
    packed = rows(n=n)
    labels = torch.cat([packed[i][1] for i in range(len(packed))])
    assert labels[labels != IGNORE_INDEX].tolist() == TOKENS[1:n].tolist()
    for i in range(len(packed)):
        inputs, labels = packed[i]
        valid = labels != IGNORE_INDEX
        assert (labels[valid] - inputs[valid]).eq(1).all(), "labels are the next tokens"


def test_rows_past_the_end_have_no_labels() -> None:
    packed = rows()
    assert packed[len(packed)][1].eq(IGNORE_INDEX).all()


def stream(loader: PackedLoader, n: int) -> list[list[int]]:
    return [labels[:, 0].tolist() for _, labels in itertools.islice(loader, n)]


def test_an_epoch_is_a_permutation_and_the_next_another() -> None:
    packed = rows()
    assert len(packed) == 63
    order = list(itertools.chain(*stream(PackedLoader(packed, batch_size=3, seed=1), 42)))
    first, second = order[:63], order[63:]
    assert sorted(first) == sorted(second) == sorted(packed[i][1][0].item() for i in range(63))
    assert first != second
    assert order != list(itertools.chain(*stream(PackedLoader(packed, batch_size=3, seed=2), 42)))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resume_continues_with_the_very_next_row(num_workers: int) -> None:
    whole = stream(PackedLoader(rows(), batch_size=4, seed=1), 40)
    for cut in (1, 15, 16, 31):
        first = PackedLoader(rows(), batch_size=4, seed=1, num_workers=num_workers)
        head = stream(first, cut)
        second = PackedLoader(rows(), batch_size=4, seed=1, num_workers=num_workers)
        second.load_state_dict(first.state_dict())
        assert head + stream(second, 40 - cut) == whole


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_the_stream(world_size: int) -> None:
    alone = list(itertools.chain(*stream(PackedLoader(rows(), batch_size=8, seed=1), 10)))
    parts = [
        stream(PackedLoader(rows(), batch_size=8 // world_size, seed=1, rank=r, world_size=world_size), 10)
        for r in range(world_size)
    ]
    together = [row for step in zip(*parts, strict=True) for batch in step for row in batch]
    assert together == alone


def test_validation_covers_every_row_once_on_any_number_of_ranks() -> None:
    packed = rows(n=700)
    for world_size, batch_size in itertools.product((1, 2, 3), (1, 4)):
        batches = [
            list(validation_batches(packed, max_rows=None, batch_size=batch_size, rank=r, world_size=world_size))
            for r in range(world_size)
        ]
        assert len({len(b) for b in batches}) == 1, "every rank takes part in every forward"
        labels = torch.cat([labels.flatten() for b in batches for _, labels in b])
        assert sorted(labels[labels != IGNORE_INDEX].tolist()) == TOKENS[1:700].tolist()


def test_short_validation_is_spread_over_the_text() -> None:
    starts = [b[0][0, 0].item() for b in validation_batches(rows(), max_rows=3, batch_size=1)]
    assert starts == [1, 1 + 21 * 16, 1 + 42 * 16]
