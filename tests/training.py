"""Training runs inside a rank of `run_ranks`, for tests that need several of them."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from conftest import compose_config

from conf.metrics_file import read_metrics
from data.corpus import prepare
from train import run_dir
from train.initial import start_from
from train.titan import trainer_config
from train.trainer import LayerSkipTrainer


class Killed(Exception):  # noqa: N818  # no error
    """Ends a run as a kill would: nothing is saved."""


def build(rank: int, folder: Path, overrides: list[str]) -> LayerSkipTrainer:
    """A trainer as `python -m train.pretrain` builds it, on this rank."""
    world_size = int(os.environ["WORLD_SIZE"])
    config = compose_config(f"run_dir={folder}", *overrides, world_size=world_size)
    corpus = prepare(config.data)
    run_dir.check_continues(config, corpus)
    if rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        run_dir.start(config, corpus, world_size)
        if config.checkpoint.initial is not None:
            start_from(config.checkpoint.initial, config.run_dir)
    if dist.is_initialized():
        dist.barrier()
    return trainer_config(config, corpus).build()  # type: ignore[no-any-return]


def train(
    rank: int,
    folder: Path,
    overrides: list[str],
    kill_in_step: int | None = None,
    change: Callable[[LayerSkipTrainer], object] = lambda trainer: None,
) -> LayerSkipTrainer:
    """Run to the end, or until a step has begun, with a change made to the trainer before; returns the trainer."""
    trainer = build(rank, folder, overrides)
    change(trainer)
    original = trainer.train_step

    def train_step(data_iterator: Any) -> None:
        if trainer.step == kill_in_step:
            raise Killed
        original(data_iterator)

    trainer.train_step = train_step  # type: ignore[method-assign]
    try:
        trainer.train()
    except Killed:
        pass
    finally:
        trainer.metrics_processor.close()
    return trainer


def rows(folder: Path) -> list[dict[str, Any]]:
    """The metrics of a run, less what depends on the clock."""
    clock = re.compile("train/(tokens_per_second|data_wait_fraction|checkpoint_)")
    logged = read_metrics(folder / "metrics.jsonl")
    return [{key: value for key, value in row.items() if not clock.match(key)} for row in logged]


def full_state(trainer: LayerSkipTrainer) -> dict[str, torch.Tensor]:
    """The whole weights, on every rank."""
    return {
        k: getattr(v, "full_tensor", lambda v=v: v)().clone() for k, v in trainer.model_parts[0].state_dict().items()
    }
