"""Which exits to look at."""

from collections.abc import Sequence

from conf.strict import ConfigError


def chosen_exits(exit_layers: Sequence[int], n_layers: int) -> list[int]:
    """Ascending, each once; all of 1..L if none are given. Raises ConfigError for one that the model does not have."""
    for e in exit_layers:
        if not 1 <= e <= n_layers:
            raise ConfigError(f"exit_layers={e}: must lie in 1..{n_layers}")
    return sorted(set(exit_layers)) or list(range(1, n_layers + 1))
