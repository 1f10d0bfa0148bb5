"""What configurations check of a value."""

from typing import Any


def at_least(minimum: int, config: Any, *keys: str) -> None:
    """Raise ValueError unless these keys are null or at least so much."""
    for key in keys:
        value = getattr(config, key)
        if value is not None and value < minimum:
            raise ValueError(f"{key}={value}: must be at least {minimum}")


def json_file(output: str | None) -> None:
    """Raise ValueError for an output of another kind."""
    if output is not None and not output.endswith(".json"):
        raise ValueError(f"output={output}: must end in .json")
