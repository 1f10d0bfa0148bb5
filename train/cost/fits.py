"""Whether the machine that a run is started on can carry it: asked before its data is read or anything is allocated."""

import logging
import os

from conf.checks import fits_cores
from conf.machine import total_memory
from conf.output import writable_folder
from conf.strict import ConfigError
from models.config import ModelConfig
from train.config import PretrainConfig
from train.cost.memory import memory_per_gpu, n_parameters

logger = logging.getLogger(__name__)

GB = 1e9
SMALL = GB / 4
"""Bytes that any machine has: which memory a run uses is then not asked, because torch takes seconds to import."""
STATE_BYTES = 16
"""Of each parameter in fp32: itself, its gradient and AdamW's two moments."""
ID_BYTES = 16
"""Of each token of a batch: its id and its label in int64."""
ROTARY_BYTES = 4
"""Of each position and element of a head: half a complex number in fp32."""


def check_machine(config: PretrainConfig, world_size: int, rank: int) -> None:
    """Raise ConfigError for a folder that cannot be written, too many processes, or a model that does not fit.

    Args:
        config: with its local_batch_size and precision filled in.
        world_size: ranks of the run, on all its machines.
        rank: this one; the run folder is rank 0's to write.
    """
    if rank == 0:
        writable_folder(config.run_dir, "run_dir")
    try:
        fits_cores(config.data, "num_workers", section="data.")
    except ValueError as error:
        raise ConfigError(str(error)) from None
    options, rows = config.parallelism, config.train.local_batch_size or 1
    share = options.tensor * (options.shard or max(1, options.data_ranks(world_size) // options.replicate))
    check_memory(config.model, rows * config.train.seq_len, share)
    here = _memory_of_a_rank()
    needed = memory_per_gpu(config, world_size, config.model.n_layers).peak
    if needed > here:
        logger.warning(
            "a step needs about %.0f GB of the %.0f GB that a rank has here; should it run out of memory, take a"
            " smaller train.local_batch_size or activation_checkpoint=full",
            needed / GB,
            here / GB,
        )


def check_memory(model: ModelConfig, n_tokens: int, share: int = 1) -> None:
    """Raise ConfigError for a model and a batch that cannot fit, whatever the step needs beside them.

    Args:
        model: its sizes.
        n_tokens: of a rank's batch.
        share: ranks that divide the parameters among themselves.
    """
    parts = {
        f"{n_parameters(model):,} parameters with gradients and optimizer": STATE_BYTES * n_parameters(model) / share,
        f"a batch of {n_tokens:,} tokens": ID_BYTES * n_tokens,
        f"positions up to model.max_seq_len={model.max_seq_len:,}": ROTARY_BYTES * model.max_seq_len * model.head_dim,
    }
    needed = sum(parts.values())
    if needed > SMALL and needed > (here := _memory_of_a_rank()):
        raise ConfigError(
            f"model={model.name}: {max(parts, key=lambda part: parts[part])} need {needed / GB:,.0f} GB of memory on"
            f" each rank, which has {here / GB:,.0f} GB here; take a smaller one, or more ranks"
        )


def _memory_of_a_rank() -> float:
    """Bytes of a GPU, or of this rank's part of the machine where there is none."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory)
    return total_memory() / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
