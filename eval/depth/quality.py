"""Sums over a text, for every exit from one pass, and what they come to."""

from collections.abc import Callable, Sequence

import torch

from conf.progress import each
from data.batches.loader import validation_batches
from data.batches.packing import IGNORE_INDEX, Rows
from eval.engine.one_pass import exit_states, logit_chunks
from models.exit_quality import ExitQuality, exit_quality
from models.exits import overlap
from models.inference import InferenceLlama


def exit_qualities(
    model: InferenceLlama,
    rows: Rows,
    exits: Sequence[int],
    token_bytes: Sequence[int],
    max_rows: int | None = None,
    batch_size: int = 8,
    between: Callable[[], object] = lambda: None,
) -> tuple[int, list[ExitQuality]]:
    """The number of tokens predicted, and how well each exit does.

    Args:
        model: decides.
        rows: the text.
        exits: exit layers, ascending; agreement and acceptance are with the last of them.
        token_bytes: [V], bytes that each id stands for.
        max_rows: only as many, spread evenly over the text; None: all.
        batch_size: rows in a pass.
        between: called before each pass.
    """
    n_rows = len(rows) if max_rows is None else min(max_rows, len(rows))
    batch_size = min(batch_size, n_rows)
    batches = validation_batches(rows, max_rows=max_rows, batch_size=batch_size, fill_id=0)
    n_bytes = torch.tensor(token_bytes, device=model.device)
    # Nats, agreements and acceptance of each exit; tokens and bytes.
    sums = torch.zeros(3, len(exits), dtype=torch.float64, device=model.device)
    counts = torch.zeros(2, dtype=torch.float64, device=model.device)
    for inputs, labels in each(batches, "perplexity", unit="batch", total=-(-n_rows // batch_size)):
        between()
        valid = labels.flatten() != IGNORE_INDEX
        at, targets = valid.nonzero().flatten().to(model.device), labels.flatten()[valid].to(model.device)
        sums += _sums(model, inputs.to(model.device), at, targets, exits)
        counts += torch.stack([torch.tensor(len(targets), device=model.device), n_bytes[targets].sum()])
    n_tokens, total_bytes = counts.tolist()
    return int(n_tokens), [
        exit_quality(e, nats=nats, agreeing=agreeing, accepted=accepted, n_tokens=n_tokens, n_bytes=total_bytes)
        for e, nats, agreeing, accepted in zip(exits, *sums.tolist(), strict=True)
    ]


@torch.inference_mode()
def _sums(
    model: InferenceLlama, inputs: torch.Tensor, at: torch.Tensor, targets: torch.Tensor, exits: Sequence[int]
) -> torch.Tensor:
    """[3, X] float64 over the positions `at` [N] of inputs [B, T]: nats, agreements and acceptance by the last exit."""
    exit_logits = [logit_chunks(model, x.flatten(0, 1)[at]) for x in list(exit_states(model, inputs, exits))]
    sums = torch.zeros(3, len(exits), dtype=torch.float64, device=model.device)
    for start, last in exit_logits[-1]:
        here = targets[start : start + len(last)]
        last_choices, p = last.argmax(-1), last.softmax(-1)
        for x, chunks in enumerate(exit_logits):
            logits = last if chunks is exit_logits[-1] else next(chunks)[1]
            sums[0, x] += torch.nn.functional.cross_entropy(logits, here, reduction="sum")
            sums[1, x] += (logits.argmax(-1) == last_choices).sum()
            sums[2, x] += len(here) if logits is last else overlap(p, logits.softmax(-1)).sum()
    return sums
