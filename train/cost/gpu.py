"""Whether a run has the GPUs that it is for."""

from importlib.util import find_spec

from conf.strict import ConfigError
from train.config import PretrainConfig
from train.cost.memory import n_parameters
from train.precision import Precision

LARGE = 500_000_000
"""Parameters from which on a run needs a GPU, unless cluster.needs_gpu says otherwise."""
FP8_CAPABILITY = (8, 9)
"""NVIDIA's compute capability from which on a GPU multiplies 8-bit floating point: Ada, Hopper."""


def check_gpu(config: PretrainConfig) -> None:
    """Raise ConfigError where a run for GPUs finds none, or finds one that cannot do what its keys ask for."""
    if config.train.fp8:
        check_fp8(config)
    parameters, needs = n_parameters(config.model), config.cluster.needs_gpu
    if not (parameters >= LARGE if needs is None else needs):
        return
    import torch  # takes seconds

    if not torch.accelerator.is_available():
        raise ConfigError(
            f"model={config.model.name}: {parameters / 1e9:.1f} billion parameters, and no GPU here; ask for GPUs"
            " (sbatch --gpus-per-node 8), or train on its CPU with cluster.needs_gpu=false"
        )


def check_fp8(config: PretrainConfig) -> None:
    """Raise ConfigError where train.fp8 cannot be had: the precision, the parallelism, the GPU, the package."""
    import torch

    if config.train.precision is not Precision.bf16:
        raise ConfigError(f"train.fp8=true: needs train.precision=bf16, not {config.train.precision}; leave it out")
    if config.parallelism.tensor > 1:
        raise ConfigError("train.fp8=true: not with parallelism.tensor > 1; use parallelism.shard, or leave it out")
    if not torch.cuda.is_available():
        raise ConfigError("train.fp8=true: no GPU here, and a CPU multiplies no 8-bit floating point; leave it out")
    if torch.version.hip is None and (found := torch.cuda.get_device_capability()) < FP8_CAPABILITY:
        name, (major, minor) = torch.cuda.get_device_name(), found
        raise ConfigError(
            f"train.fp8=true: {name} has compute capability {major}.{minor}, and 8.9 is needed (Ada, Hopper or newer);"
            " leave it out"
        )
    if find_spec("torchao") is None:
        raise ConfigError("train.fp8=true: needs the package torchao; pip install torchao, or leave it out")
