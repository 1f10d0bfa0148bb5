"""Validation at every exit: how well it predicts the text, and how well what the last layer predicts.

For each exit, with the sums over all valid labels of all ranks: val/loss/exit_03, val/ppl/exit_03, val/bpb/exit_03,
val/agreement/exit_03 and val/acceptance/exit_03, as models/exit_quality.py defines them. From the acceptance, the
setting of self-speculation that should be fastest (models/speculation.py): val/predicted_speedup,
val/predicted_exit_layer and val/predicted_num_speculations for drafts drawn at temperature 1, and from the agreement
the same for greedy ones, val/predicted_speedup_greedy and so on.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from data.batches.packing import IGNORE_INDEX
from models.config import ModelConfig
from models.exit_quality import exit_quality
from models.exits import exit_name, gathered_head, last_exit_first, local, overlap, whole
from models.speculation import head_cost, predicted_best


@torch.no_grad()
def exit_sums(
    model: nn.Module,
    lm_head: nn.Module,
    batches: Iterable[tuple[torch.Tensor, ...]],
    layers: Sequence[int],
    token_bytes: torch.Tensor,
    chunk_tokens: int,
    part: slice | None = None,
) -> torch.Tensor:
    """Sums over this rank's batches.

    The states of all exits of a batch are held, [B, T, D] each, which is what training holds of each block at least; of
    logits there is a chunk of the last exit's beside a chunk of one other's.

    Args:
        model: hands the normed states [B, T, D] of each exit in `exits` to `visit`; must be in eval mode.
        lm_head: the shared head.
        batches: (inputs [B, T], labels [B, T]) on the CPU, and where documents are kept apart the positions of the
            tokens in them, [B, T].
        layers: the exits' layers l, ascending, the last layer among them.
        token_bytes: [V] bytes that each id stands for, on the model's device.
        chunk_tokens: tokens that go through the head at a time.
        part: of each row's T tokens, those that this rank has under context parallelism; None: all.

    Returns:
        [3X + 2] float64: X sums of nats, X counts of agreements, X sums of chances of acceptance, number of valid
        labels, number of bytes.
    """
    n = len(layers)
    device = token_bytes.device
    sums = torch.zeros(3 * n + 2, dtype=torch.float64, device=device)
    for inputs, labels, *apart in batches:
        documents = apart[0].to(device) if apart else None
        positions = None
        if part is not None:
            positions = torch.arange(labels.shape[1], device=device).expand_as(labels)[:, part]
            inputs, labels = inputs[:, part], labels[:, part]
        targets = labels.to(device).reshape(-1)
        valid = targets != IGNORE_INDEX
        sums[3 * n] += valid.sum()
        sums[3 * n + 1] += token_bytes[targets[valid]].sum()
        run = partial(model, inputs.to(device), positions, document_positions=documents, exits=tuple(layers))
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
    """Add a batch's nats, agreements and acceptance at n exits to `sums`; `run(visit=...)` is the model's forward."""
    states: list[torch.Tensor] = []
    with ExitStack() as head:

        def hold(x: int, normed: torch.Tensor) -> None:
            if x == 0:  # the forward has begun: before the first, FSDP does not know yet which module is its root
                head.enter_context(gathered_head(lm_head))
            states.append(local(normed).reshape(len(targets), -1))
            if x == n - 1:  # within the forward: FSDP takes a head that runs after it for the beginning of another
                _measure(sums, states, lm_head, targets, chunk_tokens)

        run(visit=hold)


def _measure(
    sums: torch.Tensor, states: Sequence[torch.Tensor], lm_head: nn.Module, targets: torch.Tensor, chunk_tokens: int
) -> None:
    """Add to `sums` what the states [tokens, D] of n exits, the last layer's last, come to."""
    n, valid = len(states), targets != IGNORE_INDEX
    for x, start, end in last_exit_first(n, len(targets), chunk_tokens):
        logits = whole(lm_head(states[x][None, start:end]))[0].float()
        sums[x] += F.cross_entropy(logits, targets[start:end], reduction="sum", ignore_index=IGNORE_INDEX)
        choices, q = logits.argmax(-1), logits.softmax(-1)
        del logits
        if x == n - 1:
            last_choices, p, accepted = choices, q, torch.ones_like(q[:, 0])
        else:
            accepted = overlap(p, q)
        sums[n + x] += ((choices == last_choices) & valid[start:end]).sum()
        sums[2 * n + x] += (accepted * valid[start:end]).sum()
        del q


def exit_metrics(
    sums: torch.Tensor, layers: Sequence[int], size: ModelConfig, group: dist.ProcessGroup | None
) -> dict[str, float]:
    """The metrics from all ranks' sums. Reduces over `group`; every rank gets the same."""
    if group is not None:
        dist.all_reduce(sums, group=group)
    n = len(layers)
    *values, n_tokens, n_bytes = sums.tolist()
    metrics = {"val/tokens": n_tokens}
    qualities = [
        exit_quality(layer + 1, nats=nats, agreeing=agreeing, accepted=accepted, n_tokens=n_tokens, n_bytes=n_bytes)
        for layer, nats, agreeing, accepted in zip(layers, values[:n], values[n : 2 * n], values[2 * n :], strict=True)
    ]
    for quality in qualities:
        name = exit_name(quality.exit_layer)
        metrics[f"val/loss/{name}"] = quality.loss
        metrics[f"val/ppl/{name}"] = quality.perplexity
        metrics[f"val/bpb/{name}"] = quality.bits_per_byte
        metrics[f"val/agreement/{name}"] = quality.agreement
        metrics[f"val/acceptance/{name}"] = quality.acceptance
    for how, chances in (
        ("", {quality.exit_layer: quality.acceptance for quality in qualities}),
        ("_greedy", {quality.exit_layer: quality.agreement for quality in qualities}),
    ):
        if best := predicted_best(chances, size.n_layers, head_cost(size)):
            metrics |= {f"val/predicted_{key}{how}": value for key, value in best._asdict().items()}
    return metrics
