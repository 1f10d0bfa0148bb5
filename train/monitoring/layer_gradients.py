"""The gradient's norm by layer, before clipping: the sum of squares over the shards of all ranks, each counted once."""

import math
import re
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from models.exits import layer_name

IN_A_BLOCK = re.compile(r"(?:^|\.)layers\.(\d+)\.")
REST = "train/layer_grad_norm/rest"


class LayerGradients:
    """Squares are summed on the device; the host waits for them once, when `norms` is asked for.

    What is in no block (embedding, final norm, LM head) counts as the rest. The squares of all norms sum to the square
    of train/grad_norm, up to rounding.
    """

    def __init__(self, n_layers: int) -> None:
        self.n_layers = n_layers
        self._squares: torch.Tensor | None = None

    def measure(self, parameters: Iterable[tuple[str, torch.nn.Parameter]]) -> None:
        """Sum the squares of a step's gradients, which are complete and not yet clipped. All ranks call this.

        Args:
            parameters: names, in which a block is `layers.N`, and the model's parameters.
        """
        layers, shares, gradients = [], [], []
        for name, parameter in parameters:
            if parameter.grad is not None:
                layer = layer_of(name)
                layers.append(self.n_layers if layer is None else layer)
                gradient, share = part_of(parameter.grad)
                gradients.append(gradient)
                shares.append(share)
        device = gradients[0].device
        squares = torch.stack(_norms(gradients)).double().square() * torch.tensor(shares, device=device)
        index = torch.tensor(layers, device=device)
        self._squares = squares.new_zeros(self.n_layers + 1).index_add_(0, index, squares)

    def norms(self) -> dict[str, float]:
        """The norms that were measured since the last call, shallowest layer first; none without a measurement."""
        if self._squares is None:
            return {}
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(self._squares)
        norms = [math.sqrt(square) for square in self._squares.tolist()]
        self._squares = None
        names = [*(f"train/layer_grad_norm/{layer_name(layer + 1)}" for layer in range(self.n_layers)), REST]
        # Six digits: 32 layers have a row of metrics.jsonl each time that a line is logged.
        return {name: float(f"{norm:.6g}") for name, norm in zip(names, norms, strict=True)}


def layer_of(name: str) -> int | None:
    """The layer l that a parameter of this name is of; None outside of the blocks."""
    block = IN_A_BLOCK.search(name)
    return int(block[1]) if block else None


def part_of(gradient: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The part of a gradient on this rank, and one over the number of ranks that have the same part."""
    world_size = dist.get_world_size() if dist.is_initialized() else 1
    if not isinstance(gradient, DTensor):
        return gradient, 1 / world_size
    if any(placement.is_partial() for placement in gradient.placements):
        return gradient.full_tensor(), 1 / world_size
    sizes = zip(gradient.device_mesh.shape, gradient.placements, strict=True)
    shards = math.prod(size for size, placement in sizes if not placement.is_replicate())
    return gradient.to_local(), shards / world_size


def _norms(gradients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return list(torch._foreach_norm(list(gradients), 2, dtype=torch.float32))
