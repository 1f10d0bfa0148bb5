"""Sums over a text, for every exit from one pass, and what they come to."""

from collections.abc import Callable, Sequence

import torch

from conf.progress import each
from data.batches.loader import validation_batches
from data.batches.packing import IGNORE_INDEX, Rows
from eval.engine.one_pass import logits_by_exit
from models.exit_quality import ExitQuality, exit_quality
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
        exits: exit layers, ascending; agreement is with the last of them.
        token_bytes: [V], bytes that each id stands for.
        max_rows: only as many, spread evenly over the text; None: all.
        batch_size: rows in a pass.
        between: called before each pass.
    """
    n_rows = len(rows) if max_rows is None else min(max_rows, len(rows))
    batch_size = min(batch_size, n_rows)
    batches = validation_batches(rows, max_rows=max_rows, batch_size=batch_size, fill_id=0)
    n_bytes = torch.tensor(token_bytes, device=model.device)
    # Nats and agreements of each exit; tokens and bytes.
    sums = torch.zeros(2, len(exits), dtype=torch.float64, device=model.device)
    counts = torch.zeros(2, dtype=torch.float64, device=model.device)
    for inputs, labels in each(batches, "perplexity", unit="batch", total=-(-n_rows // batch_size)):
        between()
        valid = labels.flatten() != IGNORE_INDEX
        at, targets = valid.nonzero().flatten().to(model.device), labels.flatten()[valid].to(model.device)
        sums += _sums(model, inputs.to(model.device), at, targets, exits)
        counts += torch.stack([torch.tensor(len(targets), device=model.device), n_bytes[targets].sum()])
    n_tokens, total_bytes = counts.tolist()
    return int(n_tokens), [
        exit_quality(e, nats=nats, agreeing=agreeing, n_tokens=n_tokens, n_bytes=total_bytes)
        for e, nats, agreeing in zip(exits, *sums.tolist(), strict=True)
    ]


@torch.inference_mode()
def _sums(
    model: InferenceLlama, inputs: torch.Tensor, at: torch.Tensor, targets: torch.Tensor, exits: Sequence[int]
) -> torch.Tensor:
    """[2, X] float64: nats and agreements with the last exit, over the positions `at` [N] of inputs [B, T]."""
    nats, choices = [], []
    for chunks in logits_by_exit(model, inputs, exits, at):
        total, chosen = torch.zeros((), dtype=torch.float64, device=model.device), []
        for start, logits in chunks:
            here = targets[start : start + len(logits)]
            total += torch.nn.functional.cross_entropy(logits, here, reduction="sum")
            chosen.append(logits.argmax(-1))
        nats.append(total)
        choices.append(torch.cat(chosen))
    agreeing = [(choice == choices[-1]).sum() for choice in choices]
    return torch.stack([torch.stack(nats), torch.stack(agreeing).double()])
