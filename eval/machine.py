"""Where and in which number format to decode, and the provenance of what is measured there."""

import os

import torch

from conf.errors import reason
from conf.machine import available_memory
from conf.provenance import Provenance, code_revision, processor
from conf.strict import ConfigError
from eval.config import Dtype, MachineConfig
from eval.engine.ranks import world_size
from models.config import ModelConfig
from models.kernels.matrix import int8_refusal
from models.kv_cache import row_bytes


def device_and_dtype(config: MachineConfig) -> tuple[torch.device, torch.dtype]:
    """Device and dtype; sets the number of threads if it is given. Raises ConfigError for a device that is not here."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and world_size() > 1:
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was compiled for CUDA
        raise ConfigError(f"machine.device={config.device}: cannot be used here ({reason(error)})") from None
    if config.int8:
        if refusal := int8_refusal(device):
            raise ConfigError(f"machine.weights=int8: {refusal}; leave it out")
        return device, torch.bfloat16
    if config.dtype is Dtype.auto:
        return device, torch.bfloat16 if device.type == "cuda" else torch.float32
    return device, getattr(torch, config.dtype)


def batch_size_of(
    asked: str, size: ModelConfig, max_len: int, dtype: torch.dtype, device: torch.device, most: int = 64
) -> int:
    """The number that is asked for; for `auto` as many rows as fit into half of the memory that is free, 1 to `most`.

    Args:
        asked: a number, or `auto`.
        size: of the model.
        max_len: positions of each row.
        dtype: of the cache.
        device: that decodes.
        most: beyond which more rows bring little.
    """
    if asked != "auto":
        return int(asked)
    logits = size.vocab_size * (2 * torch.promote_types(dtype, torch.float32).itemsize + dtype.itemsize)
    return max(1, min(most, free_memory(device) // 2 // (row_bytes(size, max_len, dtype) + logits)))


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory()


def provenance(
    device: torch.device, dtype: torch.dtype, threads: int | str | None = None, *, int8: bool = False
) -> Provenance:
    """The provenance of a measurement; `threads` of None are those that torch uses now."""
    return Provenance(
        hardware=torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        threads=torch.get_num_threads() if threads is None else threads,
        dtype=str(dtype).removeprefix("torch.") + (", weights int8" if int8 else ""),
        torch=torch.__version__,
        commit=code_revision(),
    )
