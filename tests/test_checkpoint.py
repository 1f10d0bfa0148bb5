"""When checkpoints are written, how they are committed, and which make room for a new one."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import compose_config, run_ranks
from training import rows, train

from models.storage.manifest import Manifest, read_manifest
from models.storage.stored import read
from train.checkpoint import superseded
from train.errors import TrainingError
from train.titan import trainer_config
from train.trainer import LayerSkipTrainer

PLAIN = {2: None, 4: None, 6: None, 8: None}
LOSSES = {10: 3.0, 20: 2.0, 30: None, 40: 2.5, 50: 2.0, 60: math.nan, 70: 4.0, 80: 5.0}


@pytest.mark.parametrize(
    ("losses", "keep", "keep_every", "keep_best", "deleted"),
    [
        (PLAIN, 2, None, 0, [2, 4]),
        (PLAIN, 0, None, 0, []),
        (PLAIN, 9, None, 0, []),
        ({100: None, 20: None, 4: None}, 2, None, 0, [4]),  # as numbers, not as text
        (PLAIN, 2, 4, 0, [2]),
        ({0: None, 500: None, 1000: None, 1500: None, 2000: None}, 2, 1000, 0, [0, 500]),  # step 0 is the start
        (LOSSES, 2, None, 1, [10, 20, 30, 40, 60]),  # of 20 and 50, which are equal, the later one
        (LOSSES, 2, None, 3, [10, 30, 60]),
        (LOSSES, 2, 30, 1, [10, 20, 40]),
        (LOSSES, 2, None, 99, [30, 60]),  # not validated, or with a loss that is none
    ],
)
def test_superseded(
    losses: dict[int, float | None], keep: int, keep_every: int | None, keep_best: int, deleted: list[int]
) -> None:
    assert superseded(losses, keep, keep_every, keep_best) == deleted


OPTIONS = ["train.steps=12", "checkpoint.every=2", "validation.every=2", "train.log_every=5", "optimizer.lr=0.01"]


def steps_kept(run: Path) -> list[int]:
    return sorted(int(folder.name.removeprefix("step-")) for folder in (run / "checkpoint").iterdir())


def retained(rank: int, tmp: Path, overrides: list[str]) -> None:
    overrides = [*overrides, *OPTIONS, "checkpoint.keep_every=6", "checkpoint.keep_best=1"]
    for name, mode in (("sync", "false"), ("async", "true")):
        train(rank, tmp / name, [*overrides, f"checkpoint.async_save={mode}"]).checkpointer.close()
    train(rank, tmp / "killed", [*overrides, f"checkpoint.async_save={mode}"], kill_in_step=9).checkpointer.close()
    train(rank, tmp / "killed", [*overrides, f"checkpoint.async_save={mode}"]).checkpointer.close()


@pytest.mark.parametrize("world_size", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_what_a_run_keeps_and_commits(world_size: int, tmp_path: Path, tiny_run: list[str]) -> None:
    run_ranks(retained, world_size, tmp_path, tiny_run)
    for run in (tmp_path / "sync", tmp_path / "async"):
        losses = {row["step"]: row["val/loss/exit_04"] for row in rows(run) if "val/loss/exit_04" in row}
        best = min(losses, key=lambda step: losses[step])
        assert steps_kept(run) == sorted({6, 10, 12, best}), "every 6th, the newest 2, the best"
        for folder in (run / "checkpoint").iterdir():
            manifest = read_manifest(folder)
            assert isinstance(manifest, Manifest)
            assert {*manifest.files, "manifest.json"} == {file.name for file in folder.iterdir()}
            assert len(manifest.files) == world_size + 1
            assert manifest.facts["step"] == int(folder.name[5:])
            assert manifest.facts["validation_loss"] == losses[manifest.facts["step"]]
    plain, behind = (read(tmp_path / mode / "checkpoint" / "step-6").weights for mode in ("sync", "async"))
    assert all(torch.equal(plain[name], behind[name]) for name in plain)
    assert rows(tmp_path / "sync") == rows(tmp_path / "async")
    assert rows(tmp_path / "killed") == rows(tmp_path / "async"), "its optimizer's state too"


def by_the_clock(rank: int, tmp: Path, overrides: list[str]) -> None:
    now = [0.0]

    def clock(trainer: LayerSkipTrainer) -> None:
        # Rank 0's clock: 25 seconds a step. The other's stands still, and does not count.
        trainer.checkpointer.now = lambda: now[0] if rank == 0 else 0.0
        trainer.checkpointer._last_save = 0.0
        original = trainer.forward_backward
        trainer.forward_backward = lambda it: (now.__setitem__(0, now[0] + 25), original(it))[1]  # type: ignore[method-assign]

    options = ["train.steps=9", "checkpoint.every=null", "checkpoint.every_minutes=1.0", "checkpoint.keep=0"]
    options += ["train.log_every=100"]
    train(rank, tmp / "minutes", [*overrides, *options], change=clock)
    now[0] = 0.0
    train(rank, tmp / "both", [*overrides, *options, "checkpoint.every=4"], change=clock)


def test_minutes_between_two_checkpoints(tmp_path: Path, tiny_run: list[str]) -> None:
    run_ranks(by_the_clock, 2, tmp_path, tiny_run)
    assert steps_kept(tmp_path / "minutes") == [3, 6, 9]
    assert steps_kept(tmp_path / "both") == [3, 4, 7, 8, 9], "either saves, and the clock begins anew"
    assert [row["step"] for row in rows(tmp_path / "minutes") if "train/objective" in row] == [1, 3, 6, 9], (
        "each has a line of metrics"
    )


def test_pinned_memory_is_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus: Any = SimpleNamespace(tokenizer=SimpleNamespace(vocab_size=4096))
    for gpu, mode in ((False, "async"), (True, "async_with_pinned_mem")):
        monkeypatch.setattr("torch.cuda.is_available", lambda gpu=gpu: gpu)
        config = compose_config("checkpoint.async_save=true", "train.precision=fp32")
        assert trainer_config(config, corpus).checkpoint.async_mode == mode
    assert trainer_config(compose_config("train.precision=fp32"), corpus).checkpoint.async_mode == "disabled"


def spoiled(rank: int, tmp: Path, overrides: list[str]) -> None:
    """An update that overflows on one rank alone."""

    def overflow(trainer: LayerSkipTrainer) -> None:
        original = trainer.optimizers.step

        def step() -> None:
            original()
            if trainer.step == 3 and rank == 1:
                weight = trainer.model_parts[0].get_parameter("layers.1.attention.wo.weight")
                weight._local_tensor.data[0, 0] = math.inf  # type: ignore[attr-defined]

        trainer.optimizers.step = step

    options = ["train.steps=4", "checkpoint.every=1", "validation.every=100"]
    with pytest.raises(
        TrainingError, match=r"step 3: the weights or .* are not finite .* go on from step 2 with a lower"
    ):
        train(rank, tmp / "saved", [*overrides, *options], change=overflow)
    options = ["train.steps=4", "checkpoint.every=100", "validation.every=1"]
    with pytest.raises(TrainingError, match=r"step 3: the weights are not finite after the update; begin anew with a"):
        train(rank, tmp / "validated", [*overrides, *options], change=overflow)


def test_nothing_that_is_not_finite_is_saved_or_validated(tmp_path: Path, tiny_run: list[str]) -> None:
    run_ranks(spoiled, 2, tmp_path, tiny_run)
    assert steps_kept(tmp_path / "saved") == [1, 2]
    assert "NaN" not in (tmp_path / "validated" / "metrics.jsonl").read_text()
