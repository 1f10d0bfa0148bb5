"""Train a Llama with LayerSkip: `torchrun -m train.pretrain experiment=demo`, or with `python -m` on one rank.

Everything that can be wrong with the configuration or the data is found before a process group starts, and ends in one
line and exit status 2.
"""

import logging
import os
import socket
import sys

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from data.config import DataError
from data.corpus import Corpus, check_vocabulary, prepare
from train import run_dir
from train.config import PretrainConfig
from train.console import set_up_logging
from train.errors import ConfigError, TrainingError
from train.report import save_summary
from train.sinks import wandb_login_missing
from train.strict_config import convert, one_line, register_schema

logger = logging.getLogger("train.pretrain")  # run as __main__


def compose() -> DictConfig | None:
    """The config from conf/ and the command line; None after --help, --cfg and the like, which Hydra answers."""
    composed: list[DictConfig] = []
    # What runs inside of hydra.main has its errors announced by Hydra; so nothing does.
    hydra.main(config_path="pkg://conf", config_name="pretrain", version_base="1.3")(composed.append)()
    return composed[0] if composed else None


def pretrain(raw: DictConfig) -> None:
    """Check, prepare the data, train, and print what came out."""
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    set_up_logging(rank)
    config = convert(raw, world_size)
    if wandb_login_missing(config):
        raise ConfigError("wandb.mode=online: no login found; run `wandb login`, or use offline or disabled")
    corpus = prepare(config.data)
    check_vocabulary(corpus, config.model.vocab_size)
    run_dir.check_continues(config, corpus)
    held = run_dir.lock(config.run_dir) if rank == 0 else None
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
        _train(config, corpus)
    if rank == 0:
        print(save_summary(config.run_dir, corpus.facts))
    if held is not None:
        held.release()


def _train(config: PretrainConfig, corpus: Corpus) -> None:
    """Run torchtitan's loop. Imported late: it takes seconds, and a wrong config should not wait for it."""
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


def main() -> None:
    """Run `pretrain`, and tell a user's mistakes in one line."""
    register_schema()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let its errors through to here
    try:
        if (raw := compose()) is not None:
            pretrain(raw)
    except (ConfigError, DataError, TrainingError, HydraException, OmegaConfBaseException) as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(1 if isinstance(error, TrainingError) else 2)
    except KeyboardInterrupt:
        print("interrupted; the same command continues from the last checkpoint", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
