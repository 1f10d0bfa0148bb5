"""Validation at every exit: loss, perplexity, bits per byte, and agreement of its first choice with the last layer's.

For each exit, with the sums over all valid labels of all ranks: val/loss/exit_03, val/ppl/exit_03, val/bpb/exit_03 and
val/agreement/exit_03, as models/exit_quality.py defines them.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from data.batches.packing import IGNORE_INDEX
from models.exit_quality import exit_quality
from models.exits import exit_name, gathered_head, local, whole


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

    Each exit is measured while the forward pass is at its layer. What is held of all exits is the first choice for each
    token, so memory does not grow with their number as it would with their states.

    Args:
        model: hands the normed states [B, T, D] of each exit in `exits` to `visit`; must be in eval mode.
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
        targets = labels.to(device).reshape(-1)
        valid = targets != IGNORE_INDEX
        sums[2 * n] += valid.sum()
        sums[2 * n + 1] += token_bytes[targets[valid]].sum()
        run = partial(model, inputs.to(device), positions, exits=tuple(layers))
        _add_exits(sums, run, lm_head, n, targets, chunk_tokens)
    return sums


def _add_exits(
    sums: torch.Tensor,
    run: Callable[..., object],
    lm_head: nn.Module,
    n: int,
    targets: torch.Tensor,
    chunk_tokens: int,
) -> None:
    """Add a batch's nats and agreements at n exits to `sums`; `run(visit=...)` is the model's forward."""
    choices = torch.empty(n, len(targets), dtype=torch.int32, device=targets.device)
    with ExitStack() as head:

        def measure(x: int, states: torch.Tensor) -> None:
            if x == 0:  # the forward has begun: before the first, FSDP does not know yet which module is its root
                head.enter_context(gathered_head(lm_head))
            flat = local(states).reshape(len(targets), -1)
            for start in range(0, len(targets), chunk_tokens):
                chunk = slice(start, start + chunk_tokens)
                logits = whole(lm_head(flat[None, chunk]))[0].float()
                sums[x] += F.cross_entropy(logits, targets[chunk], reduction="sum", ignore_index=IGNORE_INDEX)
                choices[x, chunk] = logits.argmax(-1)

        run(visit=measure)
    sums[n : 2 * n] += ((choices == choices[-1]) & (targets != IGNORE_INDEX)).sum(1)


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
