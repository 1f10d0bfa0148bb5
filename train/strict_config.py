"""From Hydra's composed config to a PretrainConfig, refusing what is not in it, and errors told in one line."""

import difflib
from dataclasses import fields, is_dataclass
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from train.config import PretrainConfig, check_together
from train.errors import ConfigError
from train.precision import Precision, best_precision


def register_schema() -> None:
    """Make the schema known to Hydra under the name conf/pretrain.yaml asks for."""
    ConfigStore.instance().store(name="schema", node=PretrainConfig)


def convert(raw: DictConfig, world_size: int) -> PretrainConfig:
    """The typed config, what it leaves to the machine (local_batch_size, precision) filled in.

    Raises ConfigError for unknown or missing keys, wrong types and impossible values.
    """
    _refuse_unknown(raw, PretrainConfig, "")
    if missing := sorted(OmegaConf.missing_keys(raw)):
        raise ConfigError(f"{', '.join(missing)}: missing; give a value, or choose a group or experiment that does")
    try:
        config = cast(PretrainConfig, OmegaConf.to_object(raw))
        check_together(config, world_size)
        if config.train.precision is Precision.auto:
            config.train.precision = best_precision()
        config.train.local_batch_size = config.train.local_batch_size or config.train.global_batch_size // world_size
    except OmegaConfBaseException as error:
        raise ConfigError(one_line(error)) from None
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return config


def _refuse_unknown(raw: DictConfig, schema: type, prefix: str) -> None:
    """Hydra's `+key=value` adds keys that a structured config does not have; they would be ignored in silence."""
    known = {f.name: f.type for f in fields(schema)}
    for key in raw:
        if key not in known:
            raise ConfigError(_unknown(prefix + str(key), schema))
        if is_dataclass(known[key]) and not OmegaConf.is_missing(raw, key):
            _refuse_unknown(raw[key], cast(type, known[key]), f"{prefix}{key!s}.")


def _unknown(full_key: str, schema: type) -> str:
    key = full_key.rpartition(".")[2]
    names = [f.name for f in fields(schema)]
    near = difflib.get_close_matches(key, names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{full_key}: unknown key{hint}; allowed: {', '.join(names)}"


def _schema_at(path: str) -> type | None:
    """The dataclass of the section a dotted key lies in, or None."""
    schema: Any = PretrainConfig
    for part in path.split(".")[:-1]:
        schema = next((f.type for f in fields(schema) if f.name == part), None)
        if not is_dataclass(schema):
            return None
    return cast(type, schema)


def one_line(error: BaseException) -> str:
    """What a user needs of an error from Hydra or OmegaConf: the key, what is wrong, what is allowed."""
    cause = error
    while not isinstance(cause, OmegaConfBaseException) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, OmegaConfBaseException):
        message = (cause.msg or str(cause)).split("\n")[0]
        key = cause.full_key or ""
        if "not in" in message and key and (schema := _schema_at(key)):
            return _unknown(key, schema)
        return f"{key}: {message}" if key and key not in message else message
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    # Hydra suggests "+key=value" for unknown keys, which we refuse as well, and lists its search path.
    lines = [line for line in lines if "use +" not in line and not line.startswith(("Config search path", "provider="))]
    text = " ".join(lines)
    return f"{error.override}: {text}" if isinstance(error, OverrideParseException) else text
