"""Whether the tensors of a training state are finite, and how large they are."""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist


def tensors_of(state: Any) -> Iterator[torch.Tensor]:
    """The tensors in a state: of objects with `state_dict`, dicts and lists, this rank's part of those it shares."""
    if isinstance(state, torch.Tensor):
        yield getattr(state, "_local_tensor", state)
    elif isinstance(state, dict):
        for value in state.values():
            yield from tensors_of(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from tensors_of(value)
    elif hasattr(state, "state_dict"):
        yield from tensors_of(state.state_dict())


@torch.no_grad()
def all_finite(state: Any) -> bool:
    """Whether the tensors of all ranks are finite, and their norms too. All ranks call this and get the same.

    A number whose square overflows counts as infinite: nothing can be computed with it. The host waits once.
    """
    floats = [tensor for tensor in tensors_of(state) if tensor.is_floating_point() and tensor.numel()]
    by_device: dict[torch.device, list[torch.Tensor]] = {}
    for tensor in floats:
        by_device.setdefault(tensor.device, []).append(tensor)
    good = all(
        math.isfinite(torch.stack([norm.double() for norm in torch._foreach_norm(tensors)]).sum().item())
        for tensors in by_device.values()
    )
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return good
    verdict = torch.tensor(int(good), device=floats[0].device if floats else "cpu")
    dist.all_reduce(verdict, op=dist.ReduceOp.MIN)
    return bool(verdict.item())


def n_bytes(state: Any) -> int:
    """Bytes of this rank's tensors times the number of ranks: about what a checkpoint of the state has."""
    world_size = dist.get_world_size() if dist.is_initialized() else 1
    return world_size * sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(state))
