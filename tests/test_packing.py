"""Rows lose no token: concatenated over shards, or documents fitted together; prompts carry no loss."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from data.batches.packing import IGNORE_INDEX, BestFitRows, ConcatRows, Rows
from data.prepared.shards import Shard, Tokens


def documents(lengths: list[int], prompts: list[int] | None = None, first: int = 1) -> Shard:
    """Documents of so many tokens, which are numbered on from `first`."""
    n = sum(lengths)
    ends = np.cumsum(lengths)
    index = np.stack([ends, prompts or [0] * len(lengths)], axis=1).astype(np.int64)
    return Shard(np.arange(first, first + n, dtype=np.uint16), index)


def read(rows: Rows, row: int) -> tuple[np.ndarray, np.ndarray]:
    inputs, labels = np.zeros(rows.seq_len, np.int64), np.full(rows.seq_len, IGNORE_INDEX)
    rows.fill(row, inputs, labels)
    return inputs, labels


def all_labels(rows: Rows) -> list[int]:
    labels = np.concatenate([read(rows, i)[1] for i in range(len(rows))])
    return labels[labels != IGNORE_INDEX].tolist()


@pytest.mark.parametrize("n", [2, 16, 17, 18, 33, 999])
@pytest.mark.parametrize("n_shards", [1, 3])
def test_concat_every_token_but_the_first_is_a_label_once(n: int, n_shards: int) -> None:
    cuts = np.linspace(0, n, n_shards + 1).astype(int)
    shards = [documents([b - a], first=a + 1) for a, b in itertools.pairwise(cuts) if b > a]
    packed = ConcatRows(Tokens(shards), 16)
    assert all_labels(packed) == list(range(2, n + 1))
    for i in range(len(packed)):
        inputs, labels = read(packed, i)
        valid = labels != IGNORE_INDEX
        assert (labels[valid] - inputs[valid] == 1).all(), "labels are the next tokens"
    assert (read(packed, len(packed))[1] == IGNORE_INDEX).all(), "rows past the end have no labels"


LENGTHS = [5, 40, 2, 17, 16, 9, 33, 3, 18, 50, 2]


@pytest.mark.parametrize("n_shards", [1, 2])
def test_best_fit_every_token_but_a_documents_first_is_a_label_once(n_shards: int) -> None:
    half = len(LENGTHS) // 2
    parts = [LENGTHS] if n_shards == 1 else [LENGTHS[:half], LENGTHS[half:]]
    shards, first = [], 1
    for part in parts:
        shards.append(documents(part, first=first))
        first += sum(part)
    packed = BestFitRows(Tokens(shards), 16)
    firsts = {1 + end for end in np.cumsum([0, *LENGTHS[:-1]]).tolist()}
    assert sorted(all_labels(packed)) == [t for t in range(1, sum(LENGTHS) + 1) if t not in firsts]
    for i in range(len(packed)):
        inputs, labels = read(packed, i)
        valid = labels != IGNORE_INDEX
        assert (labels[valid] - inputs[valid] == 1).all()
    assert (read(packed, len(packed))[1] == IGNORE_INDEX).all()


def test_best_fit_leaves_documents_whole_that_fit() -> None:
    packed = BestFitRows(Tokens([documents(LENGTHS)]), 16)
    begins = np.cumsum([0, *LENGTHS[:-1]]) + 1
    for begin, length in zip(begins.tolist(), LENGTHS, strict=True):
        holding = {i for i in range(len(packed)) if set(range(begin + 1, begin + length)) & set(read(packed, i)[1])}
        assert len(holding) == -(-(length - 1) // 16), "one row, or as few as its length allows"
    # 174 labels in rows of 16 need at least 11 rows.
    assert len(packed) == 12


@pytest.mark.parametrize("kind", [ConcatRows, BestFitRows])
def test_prompts_have_no_loss(kind: type) -> None:
    lengths, prompts = [5, 40, 9, 30], [2, 20, 0, 29]
    packed = kind(Tokens([documents(lengths, prompts)]), 16)
    wanted, begin = [], 1
    for length, prompt in zip(lengths, prompts, strict=True):
        skipped = max(prompt, 1 if kind is BestFitRows or begin == 1 else 0)
        wanted += range(begin + skipped, begin + length)
        begin += length
    assert sorted(all_labels(packed)) == wanted


def test_the_plan_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens([documents(LENGTHS)])
    first = BestFitRows(tokens, 16, tmp_path / "plan")
    monkeypatch.delattr("data.batches.packing._plan")
    again = BestFitRows(tokens, 16, tmp_path / "plan")
    assert all((read(first, i)[1] == read(again, i)[1]).all() for i in range(len(first)))
