"""Whether the exits and the last layer pull the parameters that they share the same way.

train/gradient_cosine/head    of the final norm and the LM head
train/gradient_cosine/trunk   of the embedding and the blocks up to the deepest active exit below the last

Each is the cosine between the gradient of the exits' part of a step's loss and that of the last layer's part, over all
tokens of the step. Below 0, a step for the exits is one against the last layer.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from train.monitoring.layer_gradients import layer_of, part_of

Gradients = dict[str, torch.Tensor]


def gradient_of_last(
    trainer: Any, batches: Sequence[tuple[dict[str, torch.Tensor], torch.Tensor]], valid_tokens: torch.Tensor
) -> Gradients | None:
    """The gradient of the last layer's part of a step's loss, by parameter, of this rank's part of each.

    None where the step is not to be measured, or has no exit below the last. The trainer is left as it was before the
    step's forward and backward.

    Args:
        trainer: train.trainer.LayerSkipTrainer, in a step whose `weights` are set.
        batches: the step's micro-batches.
        valid_tokens: labels of the whole step.
    """
    every, last, weights = trainer.recipe.early_exit.gradient_cosine_every, trainer.n_layers - 1, trainer.weights
    if every is None or trainer.step % every or last not in weights or len(weights) == 1:
        return None
    trainer.weights = {last: weights[last]}
    trainer.accumulate(list(batches), valid_tokens)
    named = trainer.model_parts[0].named_parameters()
    found = {name: p.grad.detach().clone() for name, p in named if p.grad is not None}
    trainer.weights, trainer.micro_batch = weights, 0
    trainer.optimizers.zero_grad()
    trainer.metrics_processor.begin_step()
    return found


def gradient_cosine(model: Any, of_last: Gradients, exits: Sequence[int], *, head: bool) -> dict[str, float]:
    """The metrics of a step. All ranks call it; every rank gets the same.

    Args:
        model: models.llama.LayerSkipLlama, with the gradient of the whole loss.
        of_last: the gradient of the last layer's part of it.
        exits: the active layers below the last, ascending.
        head: whether the exits have a gradient in norm and head.
    """
    shared = {id(model.norm.weight), id(model.lm_head.weight)}
    whole = {name: p.grad for name, p in model.named_parameters() if p.grad is not None and name in of_last}
    in_head = {name for name, p in model.named_parameters() if id(p) in shared}
    groups = {"trunk": [n for n in whole if n not in in_head and _block(n) <= exits[-1]]}
    if head:
        groups["head"] = [n for n in whole if n in in_head]
    sums = torch.stack([_dots((whole[n], of_last[n]) for n in names) for names in groups.values()])
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(sums)
    found = {}
    for name, (both, ours, theirs) in zip(groups, sums.tolist(), strict=True):
        cosine = both / math.sqrt(ours * theirs) if ours * theirs > 0 else math.nan
        if math.isfinite(cosine):
            found[f"train/gradient_cosine/{name}"] = cosine
    return found


def _block(name: str) -> int:
    """The layer that a parameter is of; the embedding is below all."""
    layer = layer_of(name)
    return -1 if layer is None else layer


def _dots(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """[3] float64, to be summed over all ranks: exits . last, exits . exits, last . last; exits are whole - last."""
    total: torch.Tensor | float = 0.0
    for whole, last in pairs:
        (a, share), (b, _) = part_of(whole - last), part_of(last)
        a, b = a.double().flatten(), b.double().flatten()
        total = total + torch.stack([a @ b, a @ a, b @ b]) * share
    assert isinstance(total, torch.Tensor)
    return total
