"""What configurations check of a value. Each raises ValueError, which names the key."""

from typing import Any


def at_least(minimum: int, config: Any, *keys: str, section: str = "") -> None:
    """These keys are null or at least so much; `section` (`task.`) is what a user writes before them."""
    for key in keys:
        value = getattr(config, key)
        if value is not None and value < minimum:
            raise ValueError(f"{section}{key}={value}: must be at least {minimum}")


def ends_in(suffix: str, config: Any, *keys: str) -> None:
    """These keys are null or name a file of this kind."""
    for key in keys:
        value = getattr(config, key)
        if value is not None and not value.endswith(suffix):
            raise ValueError(f"{key}={value}: must end in {suffix}")
