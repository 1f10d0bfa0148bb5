"""From Hydra's composed config to a typed one, refusing what is not in it, and giving errors of one line.

A schema is a dataclass whose sections are dataclasses; `S` below is its type.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, cast, get_args, get_origin

from hydra.core.config_store import ConfigStore
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from conf.errors import UserError
from conf.resolvers import register_resolvers
from conf.search_path import extend_search_path
from conf.values import check_values

S = TypeVar("S")


Retired = Mapping[str, str]
"""In a schema's RETIRED: key that is no more -> what a user writes in its place."""


class ConfigError(UserError, ValueError):
    """A configuration that cannot run: names the key and what is allowed. Raised before anything starts."""


def register_schema(config_name: str, schema: type) -> None:
    """Make known to Hydra what conf/<config_name>.yaml asks for: its schema, and what the files may compute."""
    register_resolvers()
    extend_search_path()
    ConfigStore.instance().store(name=f"{config_name}_schema", node=schema)


def convert(raw: DictConfig, schema: type[S]) -> S:
    """The typed config. Raises ConfigError for unknown or missing keys, wrong types and impossible values."""
    check_keys(raw, schema)
    if missing := sorted(_missing(raw, "")):
        raise ConfigError(f"{', '.join(missing)}: missing; give a value, or choose a group or experiment that does")
    try:
        check_values(raw)
        return cast(S, OmegaConf.to_object(raw))
    except OmegaConfBaseException as error:
        raise ConfigError(one_line(error, schema)) from None
    except ValueError as error:
        raise ConfigError(str(error)) from None


def check_keys(raw: DictConfig, schema: type) -> None:
    """Raise ConfigError for keys that the schema does not have, and for keys or sections that were taken away."""
    _refuse_unknown(raw, schema, "")


def _missing(raw: DictConfig, prefix: str) -> Iterator[str]:
    """Keys without a value, like OmegaConf.missing_keys, which cannot pass by an interpolation of a missing value."""
    for key in raw:
        if OmegaConf.is_missing(raw, key):
            yield f"{prefix}{key!s}"
        elif not OmegaConf.is_interpolation(raw, str(key)) and isinstance(raw[key], DictConfig):
            yield from _missing(raw[key], f"{prefix}{key!s}.")


def _refuse_unknown(raw: DictConfig, schema: type, prefix: str) -> None:
    """Hydra's `+key=value` adds keys that a structured config does not have; they would be ignored in silence."""
    chosen = OmegaConf.get_type(raw)
    if is_dataclass(chosen):  # a group's choice may be a subclass of what the schema asks for
        schema = cast(type, chosen)
    known = {f.name: f.type for f in fields(schema)}
    present = set(raw.keys())  # `in` would not find those without a value
    if absent := [name for name in known if name not in present]:
        raise ConfigError(f"{prefix}{absent[0]}: missing; leave ~{prefix}{absent[0]} out, which takes it away")
    for key in raw:
        if key not in known:
            raise ConfigError(_unknown(prefix + str(key), schema))
        if OmegaConf.is_missing(raw, key):
            continue
        if is_dataclass(known[key]):
            if raw[key] is None:
                raise ConfigError(f"{prefix}{key!s}=null: is a section of keys, which cannot be null; leave it out")
            _refuse_unknown(raw[key], cast(type, known[key]), f"{prefix}{key!s}.")
        elif entry := _entry(known[key]):
            for name in raw[key]:
                _refuse_unknown(raw[key][name], entry, f"{prefix}{key!s}.{name}.")


def _entry(field_type: Any) -> type | None:
    """The dataclass of the entries of a dict[str, dataclass], or None."""
    entry = get_args(field_type)[-1] if get_origin(field_type) is dict else None
    return cast(type, entry) if is_dataclass(entry) else None


def _unknown(full_key: str, schema: type) -> str:
    key = full_key.rpartition(".")[2]
    names = [f.name for f in fields(schema)]
    if key in (retired := getattr(schema, "RETIRED", {})):
        return f"{full_key}: is now {retired[key]}"
    near = difflib.get_close_matches(key, names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{full_key}: unknown key{hint}; allowed: {_names(schema)}"


def _names(schema: type) -> str:
    return ", ".join(f.name for f in fields(schema))


def _section(schema: type, path: str) -> type | None:
    """The dataclass of the section a dotted key lies in, or None."""
    section: Any = schema
    for part in path.split(".")[:-1]:
        if entry := _entry(section):
            section = entry
            continue
        section = next((f.type for f in fields(section) if f.name == part), None)
        if not is_dataclass(section) and not _entry(section):
            return None
    return cast(type, section) if is_dataclass(section) else None


def one_line(error: BaseException, schema: type) -> str:
    """What a user needs of an error from Hydra or OmegaConf: the key, what is wrong, what is allowed."""
    cause = error
    while not isinstance(cause, OmegaConfBaseException) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, OmegaConfBaseException):
        message = (cause.msg or str(cause)).split("\n")[0]
        key = cause.full_key or ""
        if isinstance(cause, InterpolationToMissingValueError):
            return f"{message.rpartition(' ')[2]}: missing; give a value"
        if "is not Optional" in message:
            return f"{key}=null: cannot be null; give a value, or leave it out"
        if "does not support deletion" in message:
            return f"{key}: cannot be taken away; leave ~{key} out"
        if message.startswith("Missing mandatory value"):
            return f"{message.rpartition(' ')[2]}: missing; give a value, or choose a group that does"
        if "is not a ListConfig" in message:
            return f"{key}: is a list; write its values in brackets, '{key}=[VALUE]'"
        if "is not a subclass of" in message and key in {f.name for f in fields(schema)}:
            return f"{key}: is a section of keys; set one of them ({key}.KEY=VALUE)"
        if "is not a subclass of" in message:  # Hydra cannot begin a new entry from one of its values
            text = message.split(". value:")[0]
            return f"{text}; begin a new entry with a group's choice: +dataset@data.sources.NAME=text"
        if "not in" in message and key:
            section = cause.object_type if is_dataclass(cause.object_type) else _section(schema, key)
            if section:
                return _unknown(key, section)
            return f"{key}: a new key of a table begins with a plus sign: +{key}=VALUE"
        return f"{key}: {message}" if key and key not in message else message
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    # Hydra suggests "+key=value" for unknown keys, which we refuse as well, and lists its search path.
    lines = [line for line in lines if "use +" not in line and not line.startswith(("Config search path", "provider="))]
    text = " ".join(lines)
    if no_group := re.match(r"Could not (?:override|delete) '(\S+)'\. No match in the defaults list", text):
        return f"{no_group[1]}: this command has no group of choices of that name; allowed: {_names(schema)}"
    if not isinstance(error, OverrideParseException):
        return text
    name = error.override.partition("=")[0]
    return f"{error.override}: {text}; a value with other characters goes in two pairs of quotes, '{name}=\"VALUE\"'"
