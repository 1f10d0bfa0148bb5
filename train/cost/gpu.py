"""Whether a run has the GPUs that it is for."""

from conf.strict import ConfigError
from train.config import PretrainConfig
from train.cost.memory import n_parameters

LARGE = 500_000_000
"""Parameters from which on a run needs a GPU, unless cluster.needs_gpu says otherwise."""


def check_gpu(config: PretrainConfig) -> None:
    """Raise ConfigError where a run for GPUs finds none."""
    parameters, needs = n_parameters(config.model), config.cluster.needs_gpu
    if not (parameters >= LARGE if needs is None else needs):
        return
    import torch  # takes seconds

    if not torch.accelerator.is_available():
        raise ConfigError(
            f"model={config.model.name}: {parameters / 1e9:.1f} billion parameters, and no GPU here; ask for GPUs"
            " (sbatch --gpus-per-node 8), or train on its CPU with cluster.needs_gpu=false"
        )
