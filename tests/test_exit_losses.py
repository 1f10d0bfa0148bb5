"""Training's loss of every exit, however its rotation and the lines of metrics fall together."""

from collections import defaultdict
from pathlib import Path

import pytest
import torch
from conftest import run_ranks
from training import rows, train

from train.monitoring.exit_losses import ExitLosses


def test_means_over_the_steps_in_which_an_exit_was_active() -> None:
    losses = ExitLosses()
    for step in ({0: 1.0, 3: 2.0}, {3: 4.0}, {1: 5.0, 3: 6.0}):
        losses.begin_step()
        for _ in range(2):  # micro-batches
            losses.add(list(step), torch.tensor(list(step.values())) / 2)
        assert losses.deepest() == (3, torch.tensor(step[3]))
        losses.accept_step()
    losses.begin_step()
    losses.add([0, 3], torch.tensor([torch.nan, 9.0]))  # a skipped step, which counts for nothing
    assert losses.means(None) == {0: 1.0, 1: 5.0, 3: 4.0}
    losses.begin_step()
    losses.add([1], torch.tensor([7.0]))
    losses.accept_step()
    assert losses.means(None) == {1: 7.0}, "what an earlier line has told is forgotten"
    assert losses.means(None) == {}


def two_runs(rank: int, tmp: Path, overrides: list[str]) -> None:
    for every in (1, 3):
        train(rank, tmp / str(every), [*overrides, f"train.log_every={every}"])


def test_every_exit_is_reported_although_interval_and_rotation_share_a_divisor(
    tiny_run: list[str], tmp_path: Path
) -> None:
    options = ["early_exit=rotational_alone"]  # R = L-1 = 3
    options += ["train.steps=8", "checkpoint.every=100", "validation.every=100"]
    run_ranks(two_runs, 2, tmp_path, [*tiny_run, *options])
    seen = defaultdict(list)
    for row in rows(tmp_path / "1"):
        for key, value in row.items():
            if key.startswith("train/loss/") and 3 < row["step"] <= 6:
                seen[key].append(value)
    row = next(r for r in rows(tmp_path / "3") if r["step"] == 6 and "train/objective" in r)
    reported = {key: value for key, value in row.items() if key.startswith("train/loss/")}
    assert sorted(reported) == [f"train/loss/exit_0{e}" for e in (2, 3, 4)]
    for key, value in reported.items():
        assert value == pytest.approx(sum(seen[key]) / len(seen[key]), rel=1e-6)
