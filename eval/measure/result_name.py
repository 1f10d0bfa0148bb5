"""What a command calls its results: `perplexity` by itself, `perplexity_source-README.md_stride-64` with those keys.

So results of different settings lie beside each other, and the same command again renews its own.
"""

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from typing import Any

# Keys that change no number: where things lie, what is printed, how much is done at once. A configuration's
# WITHOUT_EFFECT names those that change none of this command's.
WITHOUT_EFFECT = frozenset(
    (
        *("checkpoint", "output", "json", "html", "color", "detail", "show", "log_samples", "recommend", "fresh"),
        *("workers", "confirm_run_unsafe_code", "prefill_chunk"),
    )
)
SPEAKS_FOR_ITSELF = ("task", "tasks", "text")
LONGEST = 110
LONGEST_WORD = 32


def changed_from_default(config: Any, without: Collection[str] = ()) -> dict[str, Any]:
    """Key -> value of what is not the default, in the order of the keys; those of sections stand among them."""
    return _differences(config, None, {*WITHOUT_EFFECT, *getattr(config, "WITHOUT_EFFECT", ()), *without})


def _differences(config: Any, defaults: Any, without: Collection[str]) -> dict[str, Any]:
    """`defaults`: of this section where the whole has its own for it; None: those of its class."""
    found: dict[str, Any] = {}
    for field in fields(config):
        if field.name in without:
            continue
        value = getattr(config, field.name)
        default = _default(field) if defaults is None else getattr(defaults, field.name)
        if is_dataclass(value):
            task = getattr(value, "name", "held_out") if field.name == "task" else "held_out"
            found |= {"task": task} if task != "held_out" else {}
            found |= _differences(value, default if is_dataclass(default) else None, without)
        elif value != default:
            found[field.name] = value
    return found


def named(command: str, parts: dict[str, Any]) -> str:
    """`benchmark_n_samples-4_dtype-float64`; with a digest at its end where the words do not say all."""
    words, exact = [], True
    for key, value in parts.items():
        spoken = [_word(v) for v in (value if isinstance(value, list) else [value])]
        exact = exact and all(clear for _, clear in spoken)
        words.append("-".join([*([] if key in SPEAKS_FOR_ITSELF else [key]), *(word for word, _ in spoken)]))
    name = "_".join(words)
    if exact and len(name) <= LONGEST:
        return "_".join([command, *words])
    if len(name) > LONGEST:
        name = name[:LONGEST].rpartition("_")[0] or name[:LONGEST]
    digest = hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:8]
    return f"{command}_{name}_{digest}"


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _word(value: Any) -> tuple[str, bool]:
    """A value as it can stand in a file's name, and whether that is all of it."""
    if isinstance(value, Enum):
        return str(value.value), True
    if isinstance(value, str):
        last = value.rstrip("/").rpartition("/")[2]
        word = re.sub(r"[^\w.]+", "-", last)[:LONGEST_WORD].strip("-._") or "x"
        return word, word == value and re.fullmatch(r"[A-Za-z0-9._]+", word) is not None
    if isinstance(value, bool | None):
        return {True: "true", False: "false", None: "null"}[value], True
    return f"{value:g}" if isinstance(value, float) else str(value), True
