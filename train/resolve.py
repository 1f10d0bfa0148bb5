"""From Hydra's composed config to a PretrainConfig that fits together, this machine and what it starts from."""

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from conf.plugins import digest, is_plugin
from conf.strict import ConfigError, check_keys, convert
from models.config import ModelConfig
from models.row_sampling import Sampling
from train.config import PretrainConfig, check_together
from train.precision import Precision, best_precision

if TYPE_CHECKING:
    from models.storage.stored import Stored

logger = logging.getLogger(__name__)

# model=initial: the sizes are those of checkpoint.initial.
INITIAL = "initial"
# May differ between a model and what it starts from: its name and the length of its rotary table.
FREE = ("name", "max_seq_len")


def resolve(raw: DictConfig, world_size: int, schema: type[PretrainConfig] = PretrainConfig) -> PretrainConfig:
    """The typed config, what it leaves open (local_batch_size, precision, sizes and tokenizer of a start) filled in.

    `schema` is its type, PretrainConfig or one that adds to it.
    Raises ConfigError for unknown or missing keys, wrong types and impossible values, FormatError for a
    checkpoint.initial that holds no model.
    """
    check_keys(raw, schema)
    stored = _initial(raw)
    if stored and OmegaConf.select(raw, "model.name") == INITIAL:
        raw.model = OmegaConf.structured(stored.size)
    config = convert(raw, schema)
    try:
        check_together(config, world_size)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if stored:
        _check_fits(config.model, stored)
        # A model knows the tokens of one tokenizer alone.
        config.data.tokenizer.path = config.data.tokenizer.path or str(stored.folder)
    if config.train.precision is Precision.auto:
        config.train.precision = best_precision()
    _resolve_compile(config)
    config.plugins = {value: digest(value) for value in plugins_of(config)}
    rows = config.train.global_batch_size // config.parallelism.data_ranks(world_size)
    config.train.local_batch_size = config.train.local_batch_size or rows
    return config


def _resolve_compile(config: PretrainConfig) -> None:
    """Whether steps are compiled, and how rows are then drawn; says so where the two do not go together."""
    dropout = config.layer_dropout
    if config.train.compile is None:
        import torch  # takes seconds, and is there already where precision was to be found out

        config.train.compile = torch.accelerator.is_available()
    if config.train.compile and dropout.p_max > 0.0 and dropout.sampling is Sampling.bernoulli:
        logger.warning(
            "layer_dropout.sampling=bernoulli with train.compile=true: any number of rows may be kept, and blocks are"
            " compiled anew, up to three times (all rows, fewer, one alone), in steps that cannot be foreseen; take"
            " layer_dropout.sampling=stratified, or train.compile=false"
        )
    dropout.sampling = dropout.sampling.where(compiled=config.train.compile)


def _initial(raw: DictConfig) -> "Stored | None":
    """What the run starts from, if it names something."""
    path = OmegaConf.select(raw, "checkpoint.initial")
    if path is None:
        if OmegaConf.select(raw, "model.name", throw_on_missing=False) == INITIAL:
            raise ConfigError("model=initial: needs checkpoint.initial, a run, a checkpoint or a Hugging Face folder")
        return None
    if path == "":
        raise ConfigError("checkpoint.initial: is empty; give a value, or null for none")
    from models.storage.stored import read

    stored = read(str(path))
    if stored.gguf:
        raise ConfigError(
            f"checkpoint.initial={path}: a GGUF file; make a folder of it first, python -m models.convert source={path}"
        )
    return stored


def _check_fits(model: ModelConfig, stored: "Stored") -> None:
    theirs = asdict(stored.size)
    for key, value in asdict(model).items():
        if key not in FREE and value != theirs[key]:
            raise ConfigError(f"model.{key}={value}: checkpoint.initial has {theirs[key]}; take model=initial")


def plugins_of(config: PretrainConfig) -> list[str]:
    """Functions of the user's own that the configuration names."""
    schedules = (config.early_exit.curriculum, config.layer_dropout.depth_schedule, config.layer_dropout.time_schedule)
    values = [*schedules, *(source.path for source in config.data.sources.values())]
    return sorted({value for value in values if is_plugin(value)})
