"""What configurations check of a value. Each raises ValueError, which names the key."""

from typing import Any

from conf.machine import usable_cores

PER_CORE = 4
"""Threads or processes that a core can still be shared by; more only wait for each other, or exhaust the machine."""


def at_least(minimum: float, config: Any, *keys: str, section: str = "") -> None:
    """These keys are null or at least so much; `section` (`task.`) is what a user writes before them."""
    for key in keys:
        value = getattr(config, key)
        if value is not None and not value >= minimum:
            raise ValueError(f"{section}{key}={value}: must be at least {minimum:,}")


def at_most(maximum: float, config: Any, *keys: str, section: str = "") -> None:
    """These keys are null or at most so much."""
    for key in keys:
        value = getattr(config, key)
        if value is not None and not value <= maximum:
            raise ValueError(f"{section}{key}={value}: must be at most {maximum:,}")


def count_or_auto(config: Any, *keys: str) -> None:
    """These keys are numbers from 1 on, or `auto`."""
    for key in keys:
        value = str(getattr(config, key))
        if value != "auto" and not (value.isdecimal() and int(value) >= 1):
            raise ValueError(f"{key}={value}: must be at least 1, or auto")


def fits_cores(config: Any, *keys: str, section: str = "") -> None:
    """These keys are null or numbers of threads or processes that this machine can carry."""
    cores = usable_cores()
    for key in keys:
        value = getattr(config, key)
        if value is not None and value > PER_CORE * cores:
            raise ValueError(
                f"{section}{key}={value}: must be at most {PER_CORE * cores}, {PER_CORE} for each of the {cores} cores"
                " that can be used here"
            )


def ends_in(suffix: str, config: Any, *keys: str) -> None:
    """These keys are null or name a file of this kind."""
    for key in keys:
        value = getattr(config, key)
        if value is not None and not value.endswith(suffix):
            raise ValueError(f"{key}={value}: must end in {suffix}")
