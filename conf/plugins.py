"""Functions and classes of a user's own, named as `my_package.my_module:name` wherever a choice of ours may stand.

The module is found as Python finds it: in the folder that the command is run from, in PYTHONPATH, or installed.
"""

import hashlib
import importlib
import inspect
import re
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from conf.errors import reason

PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_plugin(value: str) -> bool:
    """Whether a value names something of the user's own rather than one of our choices, a file or an hf:// name."""
    return PATH.fullmatch(value) is not None


def check_choice(value: str, choices: type[StrEnum], key: str, parameters: tuple[str, ...]) -> None:
    """Raise ValueError unless a value is one of the choices, or a function that takes these parameters."""
    if is_plugin(value):
        load_function(value, key, parameters)
    elif value not in list(choices):
        allowed = ", ".join(choices)
        raise ValueError(f"{key}: '{value}' is not one of {allowed}, nor a function of your own (my_package.mine:name)")


@cache  # schedules are asked for at every step and layer
def load_function(value: str, key: str, parameters: tuple[str, ...]) -> Any:
    """The function that `value` names. Raises ValueError for one that is missing or takes other parameters.

    Args:
        value: my_package.my_module:name.
        key: that the user has set to it, for the message.
        parameters: names of what it will be called with.
    """
    found = load(value, key)
    if not callable(found):
        raise ValueError(f"{key}={value}: is no function, but {type(found).__name__}")
    try:
        inspect.signature(found).bind(**dict.fromkeys(parameters))
    except TypeError:
        takes = ", ".join(inspect.signature(found).parameters)
        raise ValueError(f"{key}={value}: must take ({', '.join(parameters)}), but takes ({takes})") from None
    return found


def load_class(value: str, key: str, base: type) -> Any:
    """The class that `value` names. Raises ValueError unless it is one that derives from `base`."""
    found = load(value, key)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"{key}={value}: must be a class that derives from {base.__module__}.{base.__name__}")
    return found


@cache
def load(value: str, key: str) -> Any:
    """What `value` names. Raises ValueError, in one line, for what cannot be imported or is not there."""
    name, _, attribute = value.partition(":")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        where = "in the folder you run from, in PYTHONPATH or installed"
        raise ValueError(f"{key}={value}: no module {error.name} ({where})") from None
    except Exception as error:  # whatever the user's code raises while it is imported
        what = f"{type(error).__name__}: {reason(error)}"
        raise ValueError(f"{key}={value}: {name} cannot be imported ({what})") from None
    if not hasattr(module, attribute):
        raise ValueError(f"{key}={value}: {module.__file__} has no {attribute}")
    return getattr(module, attribute)


def digest(value: str) -> str:
    """SHA-256 of the file that defines what `value` names, in 16 hexadecimal digits, for result files."""
    file = inspect.getsourcefile(importlib.import_module(value.partition(":")[0]))
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16] if file else "unknown"
