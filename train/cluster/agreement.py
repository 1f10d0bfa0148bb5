"""What all ranks have to know of each other on the CPU, without a GPU having to wait."""

from datetime import timedelta

import torch
import torch.distributed as dist


def cpu_group(timeout_seconds: float) -> dist.ProcessGroup | None:
    """All ranks, for tensors on the CPU; None for a single one. All ranks call this."""
    if dist.get_world_size() == 1:
        return None
    if dist.get_backend() == dist.Backend.GLOO:
        return dist.group.WORLD
    return dist.new_group(backend=dist.Backend.GLOO, timeout=timedelta(seconds=timeout_seconds))


def any_rank(holds: bool, group: dist.ProcessGroup | None) -> bool:
    """Whether something holds on any rank of a `cpu_group`: the same answer on all of them, which all call this."""
    if group is None:
        return holds
    answer = torch.tensor(int(holds))
    dist.all_reduce(answer, dist.ReduceOp.MAX, group)
    return bool(answer)
