"""Train a Llama with LayerSkip: `torchrun -m train.pretrain experiment=demo`, or with `python -m` on one rank.

Everything that can be wrong with the configuration or the data is found before a process group starts, and ends in one
line and exit status 2.
"""

if __name__ == "__main__":
    from train.cluster.launcher import die_with_launcher

    die_with_launcher()  # before the imports, which take seconds

import logging
import os
import re
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from conf.command import command
from conf.errors import UserError, reason
from conf.strict import ConfigError
from train.cluster.preemption import Preemption, under_torchrun
from train.config import PretrainConfig
from train.cost.fits import check_machine
from train.errors import PREEMPTED, LostRankError
from train.monitoring.console import set_up_logging
from train.monitoring.sinks import wandb_login_missing
from train.monitoring.tensorboard import check_tensorboard
from train.resolve import resolve

logger = logging.getLogger("train.pretrain")  # run as __main__

if TYPE_CHECKING:
    from data.corpus import Corpus


def pretrain(raw: DictConfig) -> None:
    """Check, prepare the data, train, and print what came out.

    The run folder's exit_status says how it ended, which torchrun does not: 0 finished, PREEMPTED stopped by a signal
    after a checkpoint, 2 bad input, other numbers an error; a killed process leaves none.
    """
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    set_up_logging(rank)
    config = _checked(raw, world_size)
    from train import run_dir

    def write_status(status: int) -> None:
        if rank == 0:
            run_dir.write_exit_status(config.run_dir, status)

    preemption = Preemption(config.cluster.save_seconds, lambda: write_status(PREEMPTED))
    preemption.listen()
    status = 1
    try:
        status = _run(config, rank, world_size, preemption)
    except UserError as error:
        status = error.exit_status
        raise
    finally:
        write_status(status)
        preemption.ignore()
    if status == PREEMPTED and not under_torchrun():
        sys.exit(PREEMPTED)


def _run(config: PretrainConfig, rank: int, world_size: int, preemption: Preemption) -> int:
    """Train from where the run folder is to the last step; returns the exit status."""
    from data.corpus import prepare
    from data.training import check_epochs
    from train.cluster.rank_0_first import rank_0_first
    from train.cost.gpu import check_gpu
    from train.cost.records import check_apart, counted
    from train.monitoring.report import save_summary

    check_gpu(config)
    corpus = prepare(config.data, config.model.vocab_size)
    config = counted(config, corpus, world_size)
    check_apart(config, corpus)
    n_rows = config.train.steps * config.train.global_batch_size
    check_epochs(corpus, config.data, config.train.seq_len, n_rows)
    with ExitStack() as held:
        step = rank_0_first(lambda: _start(config, corpus, world_size, held), rank, world_size)
        if step < config.train.steps and _train(config, corpus, preemption):
            return PREEMPTED
        if rank == 0:
            print(save_summary(config.run_dir, corpus.facts))
    return 0


def _start(config: PretrainConfig, corpus: "Corpus", world_size: int, held: ExitStack) -> int:
    """Hold the run folder, check that it is this run's, and write down what is started; the step it goes on from."""
    from train import run_dir
    from train.initial import start_from
    from train.resilience.fallback import choose

    held.enter_context(run_dir.lock(config.run_dir, config.cluster.lock_seconds))
    run_dir.check_continues(config, corpus)
    if (step := run_dir.last_checkpoint(config.run_dir)) >= config.train.steps:
        # Nothing will be loaded; but a damaged result is none, and its last steps are trained again.
        step, _ = choose(Path(config.run_dir))
    if step >= config.train.steps:
        logger.info(
            "%s is finished (step %d of %d); choose another run_dir, or more train.steps to go on",
            config.run_dir,
            step,
            config.train.steps,
        )
        return step
    run_dir.start(config, corpus, world_size)
    if config.checkpoint.initial is not None:
        start_from(config.checkpoint.initial, config.run_dir)
    return step


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
    check_tensorboard(config)
    return config


def _train(config: PretrainConfig, corpus: "Corpus", preemption: Preemption) -> bool:
    """Run torchtitan's loop; returns whether a signal has ended it before the last step."""
    from train import run_dir
    from train.cpu import prepare_torchtitan
    from train.gpu.allocator import let_segments_grow

    if config.train.expandable_segments:
        let_segments_grow()
    prepare_torchtitan()
    import torch

    from train.cluster.heartbeat import Heartbeat, last_collective
    from train.titan import trainer_config

    _single_process_environment()
    # Torchrun would print the traceback that torchtitan's loop writes there; this command prints what is to be known.
    os.environ.pop("TORCHELASTIC_ERROR_FILE", None)
    trainer = trainer_config(config, corpus).build()

    def give_up() -> None:
        run_dir.write_exit_status(config.run_dir, PREEMPTED)

    heartbeat = Heartbeat(config.cluster.timeout_seconds, lambda: trainer.step, give_up)
    try:
        trainer.preemption, preemption.training = preemption, True
        trainer.train()
        heartbeat.stop()
        preempted = trainer.step < config.train.steps
        trainer.metrics_processor.exit_status = PREEMPTED if preempted else 0
    except RuntimeError as error:
        if not re.search(r"[Tt]imed out|[Cc]onnection (closed|reset)|[Bb]roken pipe", str(error)):
            raise
        raise LostRankError(
            f"step {trainer.step}: another rank has died or does not come to {last_collective()}"
            f" ({_of_gloo(error)}); the same command continues from the last checkpoint"
        ) from error
    finally:
        trainer.close()
        torch.distributed.destroy_process_group()
    preemption.end()
    if preempted:
        logger.info(
            "%s: saved at step %d of %d; the same command continues",
            trainer.preemption,
            trainer.step,
            config.train.steps,
        )
    return preempted


def _of_gloo(error: RuntimeError) -> str:
    """What Gloo says, less its source file and its advice."""
    return re.sub(r"^\[\S+\] ", "", reason(error)).partition(". This is")[0]


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
