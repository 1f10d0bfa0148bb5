"""Saving by a process of its own, through shared memory, as on GPUs; only the memory is not pinned, which needs one."""

from pathlib import Path

import pytest
from conftest import run_ranks
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torchtitan.components.checkpointer import AsyncMode
from training import rows, train

from train.trainer import LayerSkipTrainer

OPTIONS = ["early_exit=all", "train.steps=7", "checkpoint.every=2", "checkpoint.keep=0", "checkpoint.async_save=true"]


def by_a_process(trainer: LayerSkipTrainer) -> None:
    trainer.checkpointer.async_mode = AsyncMode.ASYNC_WITH_PINNED_MEM
    trainer.checkpointer.stager = DefaultStager(
        StagingOptions(
            use_pinned_memory=False, use_shared_memory=True, use_async_staging=True, use_non_blocking_copy=False
        )
    )


def whole_and_killed(rank: int, tmp: Path, overrides: list[str]) -> None:
    overrides = [*overrides, *OPTIONS]
    train(rank, tmp / "whole", overrides, change=by_a_process).checkpointer.close()
    train(rank, tmp / "killed", overrides, kill_in_step=6, change=by_a_process).checkpointer.close()
    train(rank, tmp / "killed", overrides, change=by_a_process).checkpointer.close()


@pytest.mark.slow
def test_resume_is_bitwise(tmp_path: Path, tiny_run: list[str]) -> None:
    run_ranks(whole_and_killed, 2, tmp_path, tiny_run)
    assert rows(tmp_path / "whole") == rows(tmp_path / "killed")
    assert sorted(f.name for f in (tmp_path / "whole" / "checkpoint").iterdir()) == [f"step-{n}" for n in (2, 4, 6, 7)]
