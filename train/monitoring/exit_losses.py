"""Each exit's training loss since the last line of metrics, in which under a rotation it was active now and then."""

from collections.abc import Sequence

import torch
import torch.distributed as dist


class ExitLosses:
    """Sums on the device; the host waits for them when `means` is asked for, and not before."""

    def __init__(self) -> None:
        self._sums: dict[int, torch.Tensor] = {}
        self._steps: dict[int, int] = {}
        self._of_step: dict[int, torch.Tensor] = {}

    def begin_step(self) -> None:
        """What is added from now on belongs to another optimizer step."""
        self._of_step = {}

    def add(self, layers: Sequence[int], losses: torch.Tensor) -> None:
        """Add the losses [X] of a micro-batch, already divided by the tokens of its whole step."""
        for layer, loss in zip(layers, losses, strict=True):
            self._of_step[layer] = self._of_step[layer] + loss if layer in self._of_step else loss

    def deepest(self) -> tuple[int, torch.Tensor]:
        """The deepest layer of this step's exits, and this rank's part of its loss."""
        layer = max(self._of_step)
        return layer, self._of_step[layer]

    def accept_step(self) -> None:
        """Count this step, which is left out of the means otherwise."""
        for layer, loss in self._of_step.items():
            self._sums[layer] = self._sums[layer] + loss if layer in self._sums else loss
            self._steps[layer] = self._steps.get(layer, 0) + 1

    def means(self, sharing: dist.ProcessGroup | None) -> dict[int, float]:
        """The mean over the accepted steps in which each layer's exit was active since the last call, shallowest first.

        Args:
            sharing: the ranks that share the tokens of a step, all of which call this; None for one rank alone.
        """
        if not self._sums:
            return {}
        layers = sorted(self._sums)
        sums = torch.stack([self._sums[layer] for layer in layers])
        if sharing is not None:
            dist.all_reduce(sums, group=sharing)
        means = {layer: total / self._steps[layer] for layer, total in zip(layers, sums.tolist(), strict=True)}
        self._sums, self._steps = {}, {}
        return means
