"""Validation at every exit: loss, perplexity, bits per byte, and agreement of its first choice with the last layer's.

For each exit, with the sums over all valid labels of all ranks: val/loss/exit_03, val/ppl/exit_03, val/bpb/exit_03 and
val/agreement/exit_03, as models/exit_quality.py defines them.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from data.batches.packing import IGNORE_INDEX
from models.exit_quality import exit_quality
from models.exits import chunk_bounds, exit_name, gathered_head, local, whole


@torch.no_grad()
def exit_sums(
    model: nn.Module,
    lm_head: nn.Module,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    layers: Sequence[int],
    token_bytes: torch.Tensor,
    chunk_tokens: int,
    part: slice | None = None,
) -> torch.Tensor:
    """Sums over this rank's batches.

    Args:
        model: returns the normed exit states [X*B, T, D] for `exits`; must be in eval mode.
        lm_head: the shared head.
        batches: (inputs [B, T], labels [B, T]) on the CPU.
        layers: the exits' layers l, ascending, the last layer among them.
        token_bytes: [V] bytes that each id stands for, on the model's device.
        chunk_tokens: tokens that go through the head at a time.
        part: of each row's T tokens, those that this rank has under context parallelism; None: all.

    Returns:
        [2X + 2] float64: X sums of nats, X counts of agreements, number of valid labels, number of bytes.
    """
    n = len(layers)
    device = token_bytes.device
    sums = torch.zeros(2 * n + 2, dtype=torch.float64, device=device)
    for inputs, labels in batches:
        positions = None
        if part is not None:
            positions = torch.arange(labels.shape[1], device=device).expand_as(labels)[:, part]
            inputs, labels = inputs[:, part], labels[:, part]
        states = local(model(inputs.to(device), positions, exits=tuple(layers))).reshape(n, inputs.numel(), -1)
        targets = labels.to(device).reshape(-1)
        valid = targets != IGNORE_INDEX
        sums[2 * n] += valid.sum()
        sums[2 * n + 1] += token_bytes[targets[valid]].sum()
        last_choice = torch.empty_like(targets)
        with gathered_head(lm_head):
            # The last exit first: the others are compared with it.
            for i, start, end in chunk_bounds(n, len(targets), chunk_tokens):
                x = n - 1 - i
                logits = whole(lm_head(states[None, x, start:end]))[0].float()
                nats = F.cross_entropy(logits, targets[start:end], reduction="sum", ignore_index=IGNORE_INDEX)
                choice = logits.argmax(-1)
                if x == n - 1:
                    last_choice[start:end] = choice
                sums[x] += nats
                sums[n + x] += ((choice == last_choice[start:end]) & valid[start:end]).sum()
    return sums


def exit_metrics(sums: torch.Tensor, layers: Sequence[int], group: dist.ProcessGroup | None) -> dict[str, float]:
    """The metrics from all ranks' sums. Reduces over `group`; every rank gets the same."""
    if group is not None:
        dist.all_reduce(sums, group=group)
    n = len(layers)
    values = sums.tolist()
    metrics = {"val/tokens": values[2 * n]}
    for i, layer in enumerate(layers):
        quality = exit_quality(
            layer + 1, nats=values[i], agreeing=values[n + i], n_tokens=values[2 * n], n_bytes=values[2 * n + 1]
        )
        name = exit_name(layer + 1)
        metrics[f"val/loss/{name}"] = quality.loss
        metrics[f"val/ppl/{name}"] = quality.perplexity
        metrics[f"val/bpb/{name}"] = quality.bits_per_byte
        metrics[f"val/agreement/{name}"] = quality.agreement
    return metrics
