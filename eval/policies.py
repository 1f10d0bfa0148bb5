"""The settings that a measurement compares."""

from collections.abc import Sequence

from conf.strict import ConfigError
from eval.config import ExitStates, Mode
from eval.engine.decoding import EarlyExit, FullDepth, Policy, SelfSpeculative


def policies(
    n_layers: int,
    exit_layers: Sequence[int],
    num_speculations: Sequence[int],
    *,
    modes: Sequence[Mode] = tuple(Mode),
    exit_states: Sequence[ExitStates] = (ExitStates.reuse,),
) -> list[Policy]:
    """Plain decoding, early exit at each exit, and self-speculation with each exit and each number of drafts.

    Args:
        n_layers: L.
        exit_layers: E, each in 1..L-1.
        num_speculations: d.
        modes: early exit and self-speculation are left out unless named here; plain decoding never is.
        exit_states: kinds of verification.

    Raises ConfigError.
    """
    exits, drafts = sorted(set(exit_layers)), sorted(set(num_speculations))
    for e in exits:
        if not 1 <= e < n_layers:
            raise ConfigError(f"exit_layers={e}: must lie in 1..{n_layers - 1} to leave layers to verify")
    early = [EarlyExit(e) for e in exits] if Mode.early_exit in modes else []
    speculative = [
        SelfSpeculative(e, d, kind is ExitStates.reuse)
        for e in exits
        for d in drafts
        for kind in dict.fromkeys(exit_states)
    ]
    return [FullDepth(), *early, *(speculative if Mode.self_speculative in modes else [])]
