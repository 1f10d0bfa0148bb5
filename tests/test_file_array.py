"""Arrays that are read from disk piece by piece: like numpy's, and a file that changes under them is told."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.batches.packing import BestFitRows
from data.config import DataError
from data.files import write_array
from data.prepared.file_array import FileArray
from data.prepared.shards import Shard, Tokens, file_hash

VALUES = np.arange(1000, dtype=np.uint16)
PAIRS = np.arange(200).reshape(100, 2)


def array(folder: Path, values: np.ndarray = VALUES) -> FileArray:
    path = folder / "a.npy"
    write_array(path, values)
    return FileArray(path, "prepare the shards again", file_hash(path))


def test_reads_what_numpy_has_written_and_the_other_way_round(tmp_path: Path) -> None:
    for values in (VALUES, PAIRS, VALUES[:0]):
        np.save(tmp_path / "theirs.npy", values)
        write_array(tmp_path / "ours.npy", values)
        assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()
        assert (FileArray(tmp_path / "theirs.npy", "")[:] == values).all()


def test_rows_like_numpys(tmp_path: Path) -> None:
    one = array(tmp_path)
    assert (len(one), one.dtype, one[7], one[-1]) == (1000, np.uint16, 7, 999)
    for part in (slice(3, 9), slice(990, 2000), slice(5, 5), slice(9, 3), slice(-4, None), slice(None)):
        assert one[part].tolist() == VALUES[part].tolist()
    two = array(tmp_path, PAIRS)
    assert two[:, 1].tolist() == PAIRS[:, 1].tolist()
    assert (two[3, 0], two[2:4].tolist()) == (6, [[4, 5], [6, 7]])


def test_another_process_opens_it_anew(tmp_path: Path) -> None:
    assert pickle.loads(pickle.dumps(array(tmp_path)))[5:7].tolist() == [5, 6]


CHANGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda f: os.truncate(f, 500), "has 500 bytes instead of 2,128 since it was opened"),
    (lambda f: os.truncate(f, 0), "has 0 bytes instead of 2,128 since it was opened"),
    (lambda f: f.write_bytes(b"\xff" * 2128), "was overwritten while it was being read"),
]


@pytest.mark.parametrize(("change", "what"), CHANGES)
def test_a_change_under_a_reader_is_told_and_does_not_end_the_process(
    tmp_path: Path, change: Callable[[Path], object], what: str
) -> None:
    tokens = Tokens([Shard(array(tmp_path), np.array([[1000, 0]]))])
    assert tokens.read(0, 3).tolist() == [0, 1, 2]
    change(tmp_path / "a.npy")
    with pytest.raises(DataError, match=rf"a\.npy: {what}; prepare the shards again"):
        tokens.read(900, 910)


def test_another_time_of_the_same_content_is_no_change(tmp_path: Path) -> None:
    read = array(tmp_path)
    os.utime(tmp_path / "a.npy", (1, 1))
    assert read[3:5].tolist() == [3, 4]


def test_a_file_that_is_gone_is_still_read_by_who_has_it_open(tmp_path: Path) -> None:
    read, later = array(tmp_path), array(tmp_path)
    assert read[0] == 0
    later._key += "."  # as if nobody had opened it yet
    (tmp_path / "a.npy").unlink()
    assert read[999] == 999
    with pytest.raises(DataError, match=r"a\.npy: can no longer be read \(No such file"):
        later[0]


def test_more_files_than_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (8, 8))
    arrays = []
    for i in range(20):
        write_array(tmp_path / f"{i}.npy", VALUES + i)
        arrays.append(FileArray(tmp_path / f"{i}.npy", ""))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        assert [a[0] for a in arrays] == list(range(20))
    assert len(os.listdir("/proc/self/fd")) <= before + 4


def test_a_plan_that_is_cut_off_is_told(tmp_path: Path) -> None:
    tokens = Tokens([Shard(VALUES, np.array([[1000, 0]]))])
    rows = BestFitRows(tokens, 16, tmp_path / "plan")
    assert len(rows) == len(BestFitRows(tokens, 16, tmp_path / "plan"))
    os.truncate(tmp_path / "plan" / "starts.npy", 200)
    with pytest.raises(DataError, match=r"starts\.npy: has 200 bytes instead of"):
        rows.fill(0, np.zeros(16, np.int64), np.zeros(16, np.int64))
    with pytest.raises(
        DataError, match=r"starts\.npy: cannot be read \(200 bytes instead of .*; delete .*/plan, it is"
    ):
        BestFitRows(tokens, 16, tmp_path / "plan")
