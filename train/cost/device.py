"""The device that a measurement is made on."""

import torch

from conf.strict import ConfigError
from train.cost.benchmark_config import Device


def usable(device: Device, key: str) -> str:
    """Cpu or cuda, `auto` resolved. Raises ConfigError, naming the key, for a GPU that is not here."""
    if device is Device.auto:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device is Device.cuda and not torch.cuda.is_available():
        raise ConfigError(f"{key}=cuda: no GPU can be used here; cpu or auto")
    return device.value


def synchronise(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
