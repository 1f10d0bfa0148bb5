"""From Hydra's composed config to a PretrainConfig that fits together and this machine."""

from omegaconf import DictConfig

from conf.strict import ConfigError, convert
from train.config import PretrainConfig, check_together
from train.precision import Precision, best_precision


def resolve(raw: DictConfig, world_size: int) -> PretrainConfig:
    """The typed config, what it leaves to the machine (local_batch_size, precision) filled in.

    Raises ConfigError for unknown or missing keys, wrong types and impossible values.
    """
    config = convert(raw, PretrainConfig)
    try:
        check_together(config, world_size)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if config.train.precision is Precision.auto:
        config.train.precision = best_precision()
    config.train.local_batch_size = config.train.local_batch_size or config.train.global_batch_size // world_size
    return config
