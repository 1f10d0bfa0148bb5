"""Which checkpoints make room for a new one."""

from pathlib import Path

import pytest
from test_run_dir import checkpoint

from train.checkpoint import superseded


@pytest.mark.parametrize(
    ("complete", "halves", "step", "keep", "deleted"),
    [
        ([2, 4, 6], [], 6, 2, [2]),
        ([0, 2], [], 2, 2, []),
        ([2, 4], [6], 6, 2, [2]),  # in the background: 6 is being written, and 4 is there meanwhile
        ([2, 4, 8], [3, 7], 8, 2, [2, 3, 7]),  # the halves of killed runs count for nothing
        ([6], [3, 7], 8, 3, [3, 7]),
        ([2, 60], [100], 60, 2, [100]),
        ([4, 20, 100], [], 100, 2, [4]),  # as numbers, not as text
    ],
)
def test_superseded(
    tmp_path: Path, complete: list[int], halves: list[int], step: int, keep: int, deleted: list[int]
) -> None:
    for at in complete:
        checkpoint(tmp_path, at)
    for at in halves:
        checkpoint(tmp_path, at, complete=False)
    (tmp_path / "checkpoint" / "notes.txt").touch()
    found = superseded(tmp_path / "checkpoint", step, keep)
    assert sorted(int(f.name.removeprefix("step-")) for f in found) == deleted
