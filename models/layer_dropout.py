"""Layer dropout per sample: which rows of the batch a block keeps, and the block run on those rows alone.

Paper, equation 1: x_{l+1} = x_l + M(p_{l,t}) f_l(x_l), one M per sample and layer, over the whole block. The kept rows
are a pure function of (seed, step, micro_batch, layer): nothing to checkpoint, the same after a resume, under
activation-checkpoint recomputation and on every data-parallel rank. The last is what keeps ranks in step: all skip the
same number of rows, and all skip a whole layer together (paper, section 4.1).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor

from models.exits import spread
from models.row_sampling import Sampling


def kept_rows(
    seed: int, step: int, micro_batch: int, layer: int, p: float, batch_size: int, sampling: Sampling
) -> torch.Tensor | None:
    """The rows of a batch that pass through a layer.

    Args:
        seed: of the run, at least 0.
        step: optimizer steps completed, t.
        micro_batch: index of the gradient-accumulation micro-batch within the step.
        layer: l, from 0.
        p: probability that a row skips the layer, in [0, 1).
        batch_size: rows B in the local micro-batch.
        sampling: how rows are drawn; not `auto`, which must have been resolved (`Sampling.where`).

    Returns:
        Ascending row indices, int64 on the CPU, possibly none at all; or None when every row is kept.
    """
    assert sampling is not Sampling.auto, "resolved by train.resolve"
    if p == 0.0:
        return None
    rng = np.random.default_rng((seed, step, micro_batch, layer))
    if sampling is Sampling.stratified:
        expected = p * batch_size
        n_dropped = int(expected) + (rng.random() < expected - int(expected))
        rows = np.sort(rng.permutation(batch_size)[n_dropped:])
    else:
        rows = np.flatnonzero(rng.random(batch_size) >= p)
    return None if len(rows) == batch_size else torch.from_numpy(rows)


class _Take(torch.autograd.Function):
    """The kept rows of x, and x for `_Put`, whose backward this one completes."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(kept)
        return x.index_select(0, kept), x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad_kept: torch.Tensor, grad_x: torch.Tensor) -> tuple[torch.Tensor, None]:
        (kept,) = ctx.saved_tensors
        return grad_x.index_copy(0, kept, grad_kept), None


class _Put(torch.autograd.Function):
    """x with its kept rows replaced.

    The gradient of x is passed on with the replaced rows still in it, because `_Take` overwrites those. Told apart, as
    index_copy and index_select do it, they cost two passes over x and a sum more.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, out: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(kept)
        return x.index_copy(0, kept, out)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        (kept,) = ctx.saved_tensors
        return grad, grad.index_select(0, kept), None


def _by_row(function: Callable[..., Any], *tensors: torch.Tensor) -> Any:
    """A function that treats rows apart; of rows that tensor parallelism shards, applied to this rank's part."""
    like = tensors[0]
    if not isinstance(like, DTensor):
        return function(*tensors)
    parts = [t.redistribute(placements=like.placements).to_local() for t in tensors if isinstance(t, DTensor)]
    out = function(*parts)
    return tuple(spread(part, like) for part in out) if isinstance(out, tuple) else spread(out, like)


def run_on_kept_rows(
    block: Callable[..., torch.Tensor],
    x: torch.Tensor,
    kept: torch.Tensor | None,
    positions: torch.Tensor | None = None,
    branch_scale: float = 1.0,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """x_{l+1} from x_l: gather the kept rows, run the block on them, scatter the result back.

    The gather is outside the block, so that FSDP, torch.compile and activation checkpointing see an ordinary call; with
    no row kept the block is not called at all.

    Args:
        block: called as block(x, attention_masks, positions) and returning x + f(x).
        x: [B, T, D].
        kept: row indices on x's device, or None for all rows.
        positions: [B, T] or None; gathered with the same index.
        branch_scale: 1, or 1/(1-p) for inverse-keep rescaling of f.
        mask: [B, 1, T, T], added to attention scores, or None; gathered with the same index.
    """
    if kept is None:
        out = block(x, mask, positions)
        return out if branch_scale == 1.0 else _by_row(lambda a, b: torch.lerp(a, b, branch_scale), x, out)
    if kept.numel() == 0:
        return x
    x_kept, x = _by_row(lambda a: _Take.apply(a, kept), x)  # type: ignore[no-untyped-call]
    mask, positions = (None if t is None else t.index_select(0, kept) for t in (mask, positions))
    out = block(x_kept, mask, positions)
    if branch_scale != 1.0:
        out = _by_row(lambda a, b: torch.lerp(a, b, branch_scale), x_kept, out)
    return _by_row(lambda a, b: _Put.apply(a, b, kept), x, out)  # type: ignore[no-untyped-call]
