"""Train a Llama with LayerSkip: `torchrun -m train.pretrain experiment=demo`, or with `python -m` on one rank.

Everything that can be wrong with the configuration or the data is found before a process group starts, and ends in one
line and exit status 2.
"""

import logging
import os
import socket
from contextlib import nullcontext
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from conf.command import command
from conf.strict import ConfigError
from train.config import PretrainConfig
from train.cost.fits import check_machine
from train.launcher import die_with_launcher
from train.monitoring.console import set_up_logging
from train.monitoring.sinks import wandb_login_missing
from train.resolve import resolve

logger = logging.getLogger("train.pretrain")  # run as __main__

if TYPE_CHECKING:
    from data.corpus import Corpus


def pretrain(raw: DictConfig) -> None:
    """Check, prepare the data, train, and print what came out."""
    die_with_launcher()
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    set_up_logging(rank)
    config = _checked(raw, world_size)
    from data.corpus import prepare
    from data.training import check_epochs
    from train import run_dir
    from train.monitoring.report import save_summary

    corpus = prepare(config.data, config.model.vocab_size)
    n_rows = config.train.steps * config.train.global_batch_size
    check_epochs(corpus, config.data, config.train.seq_len, n_rows)
    run_dir.check_continues(config, corpus)
    with run_dir.lock(config.run_dir) if rank == 0 else nullcontext():
        _go_on(config, corpus, rank, world_size)
        if rank == 0:
            print(save_summary(config.run_dir, corpus.facts))


def _go_on(config: PretrainConfig, corpus: "Corpus", rank: int, world_size: int) -> None:
    """Train from where the run folder is to the last step."""
    from train import run_dir
    from train.initial import start_from

    if (step := run_dir.last_checkpoint(config.run_dir)) >= config.train.steps:
        logger.info(
            "%s is finished (step %d of %d); choose another run_dir, or more train.steps to go on",
            config.run_dir,
            step,
            config.train.steps,
        )
    else:
        if rank == 0:
            run_dir.start(config, corpus, world_size)
        if config.checkpoint.initial is not None:
            start_from(config.checkpoint.initial, config.run_dir)
        _train(config, corpus)


def _checked(raw: DictConfig, world_size: int) -> PretrainConfig:
    """The configuration of a run that can start. Raises ConfigError and FormatError."""
    config = resolve(raw, world_size)
    if config.checkpoint.needs_initial and config.checkpoint.initial is None:
        raise ConfigError(
            "checkpoint.initial: missing; this recipe goes on from a run, a checkpoint or a Hugging Face folder"
        )
    check_machine(config, world_size, int(os.environ.get("RANK", "0")))
    if wandb_login_missing(config):
        raise ConfigError("wandb.mode=online: no login found; run `wandb login`, or use offline or disabled")
    return config


def _train(config: PretrainConfig, corpus: "Corpus") -> None:
    """Run torchtitan's loop."""
    from train.cpu import prepare_torchtitan

    prepare_torchtitan()
    import torch

    from train.titan import trainer_config

    _single_process_environment()
    trainer = trainer_config(config, corpus).build()
    try:
        trainer.train()
    finally:
        trainer.close()
        torch.distributed.destroy_process_group()


def _single_process_environment() -> None:
    """What torchrun would set, for `python -m train.pretrain`."""
    if "RANK" in os.environ:
        return
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    os.environ |= {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
    }


if __name__ == "__main__":
    command(
        "pretrain",
        PretrainConfig,
        pretrain,
        check=lambda raw: resolve(raw, world_size=1),
        own_output="run_dir",
        interrupted="interrupted; the same command continues from the last checkpoint",
    )
