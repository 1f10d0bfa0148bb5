"""From exit states to logits: the one LM head, applied to many exits in chunks of bounded size.

All L exits of a batch through the head at once would be L*B*T*V numbers. The head is applied to `chunk_tokens` tokens
of one exit at a time instead, and its weight stays gathered in between when it is sharded by FSDP.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Placement


def exit_name(exit_layer: int) -> str:
    """The name of an exit in metrics and files: `exit_03` is after 3 blocks, i.e. the output of layer l = 2."""
    return f"exit_{exit_layer:02d}"


def layer_name(number: int) -> str:
    """The name of a block in metrics: `layer_03` is the third, l = 2, whose output `exit_03` reads."""
    return f"layer_{number:02d}"


def exit_layer_of(name: str) -> int:
    """The exit layer E that `exit_name` has made a name of, also at the end of a metric's."""
    return int(name.rpartition("exit_")[2])


def chunk_bounds(n_exits: int, n_tokens: int, chunk_tokens: int) -> Iterator[tuple[int, int, int]]:
    """(exit index, first token, one past the last token) of every chunk, exit by exit."""
    for x in range(n_exits):
        for start in range(0, n_tokens, chunk_tokens):
            yield x, start, min(start + chunk_tokens, n_tokens)


def last_exit_first(n_exits: int, n_tokens: int, chunk_tokens: int) -> Iterator[tuple[int, int, int]]:
    """As `chunk_bounds`, but chunk of tokens by chunk of tokens, and of each the last exit's first."""
    for start in range(0, n_tokens, chunk_tokens):
        for x in (n_exits - 1, *range(n_exits - 1)):
            yield x, start, min(start + chunk_tokens, n_tokens)


def overlap(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """sum_v min(p(v), q(v)) of distributions [n, V]: [n] chances that what q draws is accepted as drawn from p.

    The memory of q is used for the minima.
    """
    return torch.minimum(p, q, out=q).sum(-1)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part on this rank of a tensor that tensor parallelism has spread; of exit states every rank has the whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with the parts of all ranks, such as logits that are sharded over the vocabulary."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def spread(part: torch.Tensor, like: torch.Tensor, placements: Sequence[Placement] | None = None) -> torch.Tensor:
    """The reverse of `local`: placed as `like`, or as `placements` on its mesh."""
    if not isinstance(like, DTensor):
        return part
    return DTensor.from_local(part, like.device_mesh, placements or like.placements, run_check=False)


@contextmanager
def gathered_head(lm_head: nn.Module, then_backward: bool = False) -> Iterator[None]:
    """Keep a sharded head's weight gathered, and its gradient unreduced, while chunks go through it.

    One all-gather and one reduce-scatter for all chunks: norm and head are one FSDP unit, and the weight is there since
    the norm's forward. The caller switches the gradient sync on again for its last chunk (`sync_last_chunk`). The flags
    are restored when an exception passes.

    Args:
        lm_head: the head.
        then_backward: whether the backward through the norm follows. It needs the unit and reshards it, so the weight
            is left gathered instead of being gathered once more.
    """
    if not isinstance(lm_head, FSDPModule):
        yield
        return
    lm_head.set_reshard_after_forward(False, recurse=False)  # as torchtitan sets it for the head; it stays so
    lm_head.set_reshard_after_backward(False, recurse=False)
    lm_head.set_requires_gradient_sync(False, recurse=False)
    lm_head.unshard()
    done = False
    try:
        yield
        done = True
    finally:
        lm_head.set_reshard_after_backward(True, recurse=False)
        lm_head.set_requires_gradient_sync(True, recurse=False)
        if not (done and then_backward):
            lm_head.reshard()


def sync_last_chunk(lm_head: nn.Module) -> None:
    """Let the next backward through a sharded head reduce the gradients of all chunks so far."""
    if isinstance(lm_head, FSDPModule):
        lm_head.set_requires_gradient_sync(True, recurse=False)
