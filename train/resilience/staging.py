"""How torch 2.13 copies a state aside, to be written in the background, mended for parts of fused matrices."""

from typing import Any

import torch
from torch.distributed.checkpoint._state_dict_stager import StateDictStager
from torch.distributed.tensor import DTensor

_torchs: Any = StateDictStager._offload_tensor


def mend_staging() -> None:
    """Have DTensors copied aside by their local tensors. Safe to call more than once.

    torch takes a tensor with an address other than 0 for one with memory of its own. A DTensor has none, but one that
    is a part of another (k and v of a fused matrix) has its offset there: copying it fails.
    """
    StateDictStager._offload_tensor = _offload_tensor  # type: ignore[method-assign]


def _offload_tensor(
    stager: StateDictStager, tensor: torch.Tensor, memo: dict[Any, Any], non_blocking: bool = False
) -> Any:
    if not isinstance(tensor, DTensor) or tensor.data_ptr() == 0:
        return _torchs(stager, tensor, memo, non_blocking)
    part = tensor._local_tensor.clone()
    memo.setdefault("parts", []).append(part)  # known by its address, which nothing else may get meanwhile
    local = _torchs(stager, part, memo, non_blocking)
    return DTensor(local, tensor._spec, requires_grad=False)  # type: ignore[no-untyped-call]
