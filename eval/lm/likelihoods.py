"""Log-likelihoods of continuations at several exits, in batches, from one pass.

What a pair needs are the positions that predict its continuation: the head runs on those alone. Pairs with the same
tokens but for the last ones asked about ("A", "B", "C", "D" after one question) share a row of the batch.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch

from eval.engine.one_pass import logits_by_exit
from models.inference import InferenceLlama


class LikelihoodRequest(NamedTuple):
    """Tokens that are given and, after them, tokens that are asked about; at least one of each."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


class Likelihood(NamedTuple):
    """The likelihood of a continuation by one exit."""

    log_probability: float
    """Sum over its tokens, in nats."""
    is_greedy: bool
    """Whether each of its tokens is the most likely one."""


def likelihoods(
    model: InferenceLlama, pairs: Sequence[LikelihoodRequest], exits: Sequence[int], *, max_length: int, batch_size: int
) -> Iterator[tuple[LikelihoodRequest, list[Likelihood]]]:
    """The likelihoods of each pair, one for each exit, longest input first.

    Args:
        model: decides.
        pairs: all different.
        exits: exit layers E in 1..L, ascending.
        max_length: tokens of the longest input; a context that is too long loses its first tokens.
        batch_size: inputs in a pass.
    """
    rows: dict[tuple[int, ...], list[LikelihoodRequest]] = {}
    for pair in pairs:
        # The last token is only predicted.
        rows.setdefault((pair.context + pair.continuation)[-max_length - 1 : -1], []).append(pair)
    order = sorted(rows.items(), key=lambda row: -len(row[0]))
    for start in range(0, len(order), batch_size):
        yield from _pass(model, order[start : start + batch_size], exits)


@torch.inference_mode()
def _pass(
    model: InferenceLlama, rows: list[tuple[tuple[int, ...], list[LikelihoodRequest]]], exits: Sequence[int]
) -> list[tuple[LikelihoodRequest, list[Likelihood]]]:
    width = len(rows[0][0])
    tokens = torch.tensor([[*row, *[0] * (width - len(row))] for row, _ in rows], device=model.device)
    # Which states the head is to see, and which of those predicts which token.
    states_at: list[int] = []
    predictors: list[int] = []
    for i, (row, pairs) in enumerate(rows):
        most = max(len(pair.continuation) for pair in pairs)
        end = len(states_at) + most
        states_at += range(i * width + len(row) - most, i * width + len(row))
        for pair in pairs:
            predictors += range(end - len(pair.continuation), end)
    asked = [pair for _, pairs in rows for pair in pairs]
    lengths = [len(pair.continuation) for pair in asked]
    targets = torch.tensor([token for pair in asked for token in pair.continuation], device=model.device)
    at, by = torch.tensor(states_at, device=model.device), torch.tensor(predictors, device=model.device)
    found: list[list[Likelihood]] = [[] for _ in asked]
    for chunks in logits_by_exit(model, tokens, exits, at):
        scored = _scores(chunks, by, targets)
        parts = (torch.split(part, lengths) for part in scored)
        for likelihood, nats, hits in zip(found, *parts, strict=True):
            likelihood.append(Likelihood(float(nats.sum()), bool(hits.all())))
    return list(zip(asked, found, strict=True))


def _scores(
    chunks: Iterable[tuple[int, torch.Tensor]], by: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability [P] float64, on the CPU as the next, of each target, and whether it is the most likely token [P].

    `chunks` are those of logits [N, V]; row by[p] of them predicts target p [P].
    """
    nats = torch.empty(len(targets), dtype=torch.float64, device=targets.device)
    hits = torch.empty(len(targets), dtype=torch.bool, device=targets.device)
    for start, logits in chunks:
        here = (by >= start) & (by < start + len(logits))
        row, target = by[here] - start, targets[here]
        nats[here] = logits.log_softmax(-1)[row, target].double()
        hits[here] = logits.argmax(-1)[row] == target
    return nats.cpu(), hits.cpu()
