"""The loss of an exit's logits against labels and a teacher's distribution, with its gradient written out.

For one token with label y, the teacher's p^tau and the exit's logits z, q = softmax(z) and q^tau = softmax(z / tau):

    (1 - b) CE + b tau^2 KL(p^tau || q^tau),    whose gradient is    (1 - b) (q - 1_y) + b tau (q^tau - p^tau)

Autograd would keep several tensors of [tokens, vocabulary] for it; here the log-probabilities are kept alone, and
their memory becomes the gradient's: there can be one backward.

Under tensor parallelism each rank has a part of the vocabulary; sums over it are taken over ranks, and the gradient
needs none.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
from torch.distributed.tensor import DTensor

from data.batches.packing import IGNORE_INDEX


class Vocabulary(NamedTuple):
    """The ids of this rank's logits under tensor parallelism."""

    first: int
    """The smallest of them."""
    group: dist.ProcessGroup
    """The ranks that have the others."""


class Teacher(NamedTuple):
    """What the last layer predicts for n tokens; constants for the gradient."""

    probabilities: torch.Tensor
    """[n, V] p^tau; of this rank's part of the vocabulary."""
    negative_entropy: torch.Tensor
    """[n] sum of p^tau log p^tau."""


class SoftLoss(NamedTuple):
    """Sums over the tokens with a label."""

    objective: torch.Tensor
    """(1 - b) CE + b tau^2 KL; the only one with a gradient."""
    nats: torch.Tensor
    """CE."""
    divergence: torch.Tensor
    """KL, of the tokens whose b is not 0."""
    log_probabilities: torch.Tensor
    """[n, V] log q."""


def vocabulary_part(logits: torch.Tensor) -> Vocabulary | None:
    """Which ids the logits of this rank are of; None for all."""
    if not isinstance(logits, DTensor) or not logits.placements[-1].is_shard(logits.ndim - 1):
        return None
    group = logits.device_mesh.get_group("tp")
    return Vocabulary(-(-logits.shape[-1] // dist.get_world_size(group)) * dist.get_rank(group), group)


def teacher_of(
    log_probabilities: torch.Tensor, temperature: float, part: Vocabulary | None, *, compiled: bool = False
) -> Teacher:
    """The teacher whose log-probabilities [n, V] are those of the last layer."""
    return Teacher(*_run(_teacher, compiled, part)(log_probabilities, temperature, part))


def soft_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    teacher: Teacher | None,
    kl_shares: torch.Tensor,
    temperature: float,
    part: Vocabulary | None,
    *,
    compiled: bool = False,
) -> SoftLoss:
    """The loss of n tokens, summed.

    Args:
        logits: [n, V], of this rank's part of the vocabulary; computed in at least fp32.
        labels: [n] int64, IGNORE_INDEX where there is no loss.
        teacher: of the same tokens; None for cross entropy alone.
        kl_shares: b of each token, [n, 1] in fp32.
        temperature: tau.
        part: of the vocabulary; None for all.
        compiled: makes one pass of what are several over the logits, unless ranks have parts of the vocabulary.
    """
    return SoftLoss(*_SoftLoss.apply(logits, labels, teacher, kl_shares, temperature, part, compiled))  # type: ignore[no-untyped-call]


class _SoftLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        labels: torch.Tensor,
        teacher: Teacher | None,
        kl_shares: torch.Tensor,
        temperature: float,
        part: Vocabulary | None,
        compiled: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        valid = labels != IGNORE_INDEX
        at = labels - (part.first if part else 0)
        here = valid & (at >= 0) & (at < logits.shape[1])
        at = torch.where(here, at, 0)[:, None]
        objective, nats, divergence, log_q, log_sum = _run(_measured, compiled, part)(
            logits, at, here, valid, teacher, kl_shares, temperature, part
        )
        p = None if teacher is None else teacher.probabilities
        ctx.save_for_backward(log_q, log_sum, at, here, valid, p, kl_shares)
        ctx.dtype, ctx.temperature, ctx.gradient = logits.dtype, temperature, _run(_gradient, compiled, part)
        ctx.mark_non_differentiable(nats, divergence, log_q)
        ctx.set_materialize_grads(False)  # for log_q they would be zeros of its size
        return objective, nats, divergence, log_q

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor, *_: Any) -> tuple[torch.Tensor, None, None, None, None, None, None]:
        return ctx.gradient(*ctx.saved_tensors, scale, ctx.temperature, ctx.dtype), None, None, None, None, None, None


def _run(function: Callable[..., Any], compiled: bool, part: Vocabulary | None) -> Callable[..., Any]:
    return _compiled(function) if compiled and part is None else function


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled for any number of tokens."""
    return torch.compile(function, dynamic=True)


def _teacher(
    log_probabilities: torch.Tensor, temperature: float, part: Vocabulary | None
) -> tuple[torch.Tensor, torch.Tensor]:
    log_p = log_probabilities if temperature == 1.0 else _log_softmax(log_probabilities / temperature, part)
    p = log_p.exp()
    return p, _over_ranks(torch.linalg.vecdot(p, log_p), part)


def _measured(
    logits: torch.Tensor,
    at: torch.Tensor,
    here: torch.Tensor,
    valid: torch.Tensor,
    teacher: Teacher | None,
    kl_shares: torch.Tensor,
    temperature: float,
    part: Vocabulary | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The sums of objective, CE and KL, log q and, where tau is not 1, [n, 1] log of the sum of exp(log q / tau).

    `at` [n, 1] are the labels as places in this rank's part of the vocabulary, 0 for those that are not `here`.
    """
    log_q = _log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), part)
    nats = -_over_ranks(torch.where(here, log_q.gather(1, at)[:, 0], 0.0), part)
    log_sum, divergence, objective = None, torch.zeros_like(nats), nats
    if teacher is not None:
        if temperature == 1.0:
            cross = torch.linalg.vecdot(teacher.probabilities, log_q)
        else:
            # log q^tau = log q / tau - log_sum, and the probabilities of all ids sum to 1.
            log_sum = _log_sum_exp(log_q / temperature, part)
            cross = torch.linalg.vecdot(teacher.probabilities, log_q) / temperature
        cross = _over_ranks(cross, part)
        if log_sum is not None:
            cross = cross - log_sum[:, 0]
        b = kl_shares[:, 0]
        divergence = torch.where(valid & (b > 0), teacher.negative_entropy - cross, 0.0)
        objective = (1 - b) * nats + b * temperature**2 * divergence
    return objective.sum(), nats.sum(), divergence.sum(), log_q, log_sum


def _gradient(
    log_q: torch.Tensor,
    log_sum: torch.Tensor | None,
    at: torch.Tensor,
    here: torch.Tensor,
    valid: torch.Tensor,
    p: torch.Tensor | None,
    b: torch.Tensor,
    scale: torch.Tensor,
    temperature: float,
    dtype: torch.dtype,
) -> torch.Tensor:
    hard = torch.ones_like(b) if p is None else 1 - b
    q_tau = None if log_sum is None else log_q.div(temperature).sub_(log_sum).exp_()
    fused = torch.compiler.is_compiling()
    grad = log_q.exp() if fused else log_q.exp_()  # in the memory of log q, which nobody needs any more
    if q_tau is not None and p is not None:
        grad.mul_(hard).addcmul_(q_tau.sub_(p), b * temperature)
    elif p is not None:
        grad.addcmul_(p, b, value=-1.0)  # q stays whole: (1 - b) q + b q
    of_label = torch.where(here[:, None], -hard, 0.0)
    if fused:  # a comparison joins the pass over the ids, where a scatter would need the gradient in memory
        grad += torch.where(torch.arange(grad.shape[1], device=grad.device) == at, of_label, 0.0)
    else:
        grad.scatter_add_(1, at, of_label)
    grad.mul_(torch.where(valid, scale, 0.0)[:, None])
    return grad.to(dtype)


def _log_softmax(logits: torch.Tensor, part: Vocabulary | None) -> torch.Tensor:
    return torch.log_softmax(logits, -1) if part is None else logits - _log_sum_exp(logits, part)


def _log_sum_exp(logits: torch.Tensor, part: Vocabulary | None) -> torch.Tensor:
    """[n, 1] log of the sum of exp over all ids."""
    if part is None:
        return logits.logsumexp(-1, keepdim=True)
    largest = _reduced(logits.amax(-1, keepdim=True), "max", part)
    total = _reduced((logits - largest).exp_().sum(-1, keepdim=True), "sum", part)
    return largest + total.log()


def _over_ranks(sums: torch.Tensor, part: Vocabulary | None) -> torch.Tensor:
    """Sums over this rank's ids -> sums over all ids."""
    return sums if part is None else _reduced(sums, "sum", part)


def _reduced(tensor: torch.Tensor, how: str, part: Vocabulary) -> torch.Tensor:
    return collectives.all_reduce(tensor, how, part.group)
