"""Where and in which number format to decode, and the provenance of what is measured there."""

import torch

from conf.errors import reason
from conf.provenance import Provenance, code_revision, processor
from conf.strict import ConfigError
from eval.config import Dtype, MachineConfig


def device_and_dtype(config: MachineConfig) -> tuple[torch.device, torch.dtype]:
    """Device and dtype; sets the number of threads if it is given. Raises ConfigError for a device that is not here."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was compiled for CUDA
        raise ConfigError(f"machine.device={config.device}: cannot be used here ({reason(error)})") from None
    if config.dtype is Dtype.auto:
        return device, torch.bfloat16 if device.type == "cuda" else torch.float32
    return device, getattr(torch, config.dtype)


def provenance(device: torch.device, dtype: torch.dtype, threads: int | str | None = None) -> Provenance:
    """The provenance of a measurement; `threads` of None are those that torch uses now."""
    return Provenance(
        hardware=torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        threads=torch.get_num_threads() if threads is None else threads,
        dtype=str(dtype).removeprefix("torch."),
        torch=torch.__version__,
        commit=code_revision(),
    )
