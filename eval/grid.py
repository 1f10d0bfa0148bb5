"""The settings that a benchmark compares."""

from collections.abc import Sequence

from conf.strict import ConfigError
from eval.engine.decoding import EarlyExit, FullDepth, Policy, SelfSpeculative


def policies(n_layers: int, exit_layers: Sequence[int], num_speculations: Sequence[int]) -> list[Policy]:
    """Plain decoding, early exit at each exit, and self-speculation with each exit and each number of drafts.

    Args:
        n_layers: L.
        exit_layers: E, each in 1..L-1; empty: an eighth, three sixteenths, a quarter and a half of L.
        num_speculations: d.

    Raises ConfigError.
    """
    exits = sorted(set(exit_layers) or {max(1, round(share * n_layers / 16)) for share in (2, 3, 4, 8)})
    for e in exits:
        if not 1 <= e < n_layers:
            raise ConfigError(f"exit_layers={e}: must lie in 1..{n_layers - 1} to leave layers to verify")
    speculative = [SelfSpeculative(e, d) for e in exits for d in sorted(set(num_speculations))]
    return [FullDepth(), *(EarlyExit(e) for e in exits), *speculative]
