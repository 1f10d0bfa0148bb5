"""What no key of any configuration can be, whatever it means: nan, infinity, beyond 64 bits, an empty text."""

import math
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

INT64 = 2**63
"""torch and numpy take whole numbers below this, of either sign."""
SMALLEST, LARGEST = 1.2e-38, 3.4e38
"""Of fp32, in which models compute: what lies outside becomes 0 or infinity there."""


def check_values(config: DictConfig) -> None:
    """Raise ValueError, which names the key, for a value that nothing could work with; no value may be missing."""
    for key, value, default in _leaves(config, ""):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{key}={value}: must be a finite number")
        if isinstance(value, float) and not (value == 0 or SMALLEST <= abs(value) <= LARGEST):
            raise ValueError(f"{key}={value}: must be 0, or {SMALLEST} to {LARGEST} in size, which fp32 can hold")
        if isinstance(value, int) and not -INT64 <= value < INT64:
            raise ValueError(f"{key}={value}: must fit into 64 bits, -2^63 to 2^63 - 1")
        if isinstance(value, str):
            _check_text(key, value, default)


def _check_text(key: str, value: str, default: Any) -> None:
    if not value and value != default:
        raise ValueError(f"{key}: is empty; give a value{', or null for none' if default is None else ''}")
    if "\0" in value:
        raise ValueError(f"{key}: holds a NUL character, which no file's name and no text may have; leave it out")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{key}={value!a}: holds bytes that are not UTF-8; write it in UTF-8") from None


def _leaves(config: DictConfig, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, value, default of its field) of everything that is no section."""
    schema: Any = OmegaConf.get_type(config)
    defaults = {field.name: field.default for field in fields(schema)} if is_dataclass(schema) else {}
    for name in config:
        key, value = f"{prefix}{name!s}", config[name]
        if isinstance(value, DictConfig):
            yield from _leaves(value, f"{key}.")
        elif isinstance(value, ListConfig):
            yield from ((key, entry, "") for entry in value)  # a list's empty texts are its owner's to judge
        else:
            yield key, value, defaults.get(str(name), MISSING)
