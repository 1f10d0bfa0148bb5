"""The states of a round's tokens at exits that do not draft, caught on their way up: what would they have drafted?"""

import torch


class Probes:
    """What is caught in one round."""

    def __init__(self, exits: tuple[int, ...] = ()) -> None:
        """`exits`: to stop at, ascending."""
        self.exits = exits
        self._caught: dict[int, list[torch.Tensor]] = {}

    def within(self, start: int, stop: int) -> list[int]:
        """The exits inside of a pass from one layer to another."""
        return [e for e in self.exits if start < e < stop]

    def catch(self, exit_layer: int, states: torch.Tensor) -> None:
        """States [B, T, D] of the next tokens of the round."""
        self._caught.setdefault(exit_layer, []).append(states)

    @property
    def states(self) -> dict[int, torch.Tensor]:
        """Exit layer -> [B, d + 1, D]."""
        return {e: torch.cat(parts, 1) for e, parts in self._caught.items()}


NO_PROBES = Probes()
