"""A killed run continues bitwise: in the middle of each curriculum, on one and on two ranks."""

from pathlib import Path

import pytest
from conftest import run_ranks
from training import rows, train

CURRICULA = {
    "rotational": ["early_exit=rotational", "early_exit.rotation_period=3", "layer_dropout=exp_scratch"],
    "gradual": [
        "early_exit=gradual",
        "layer_dropout=exp",
        "layer_dropout.sampling=stratified",
        "data.attend_across_documents=false",
    ],
    "distilled": [
        "early_exit=distilled",
        "early_exit.distillation.begin=0.3",
        "early_exit.distillation.otherwise=paper",
        "early_exit.distillation.teach_dropped_rows=false",
        "early_exit.gradient_cosine_every=5",
        "layer_dropout=linear_decreasing",
    ],
    "all": ["early_exit=all", "layer_dropout=exp", "train.precision=fp32", "activation_checkpoint=full"],
}
COMMON = ["train.steps=10", "checkpoint.every=3", "validation.every=5", "layer_dropout.p_max=0.6"]


def whole_and_killed(rank: int, tmp: Path, overrides: list[str]) -> None:
    for name, options in CURRICULA.items():
        train(rank, tmp / name / "whole", [*overrides, *COMMON, *options])
        killed = tmp / name / "killed"
        train(rank, killed, [*overrides, *COMMON, *options], kill_in_step=2)  # before the first checkpoint
        train(rank, killed, [*overrides, *COMMON, *options], kill_in_step=6)  # two steps after one
        train(rank, killed, [*overrides, *COMMON, *options], kill_in_step=10)
        train(rank, killed, [*overrides, *COMMON, *options])


@pytest.mark.parametrize("world_size", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_resume_is_bitwise(world_size: int, tmp_path: Path, tiny_run: list[str]) -> None:
    run_ranks(whole_and_killed, world_size, tmp_path, tiny_run)
    for name in CURRICULA:
        whole, killed = rows(tmp_path / name / "whole"), rows(tmp_path / name / "killed")
        assert [r["step"] for r in whole] == [1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 10]
        assert whole == killed, name
        losses = [r["train/objective"] for r in whole if "train/objective" in r]
        assert len(set(losses)) == 10
        exits = [{k for k in r if k.startswith("train/loss/")} for r in whole if "train/objective" in r]
        assert len({frozenset(e) for e in exits}) == (1 if name == "all" else 3)
