"""What every exit predicts at every position of a text, and from which layer on a prediction stays (paper, s. 3).

Letters: L layers, T positions, K best tokens, V vocabulary.
"""

from typing import NamedTuple

import torch

from eval.engine.one_pass import exit_states
from models.inference import InferenceLlama

# Positions that go through the head at once: V numbers for each.
CHUNK = 64


class Predictions(NamedTuple):
    """What the exits after 1..L layers predict, through the final norm and the shared head; index l is exit l + 1."""

    ids: torch.Tensor
    """[L, T, K] int64, the most likely next tokens, best first."""
    probabilities: torch.Tensor
    """[L, T, K], theirs."""
    last_layers_choice: torch.Tensor
    """[L, T], the probability that each exit gives to the last layer's prediction."""


def predictions(model: InferenceLlama, tokens: list[int], first: int, k: int) -> Predictions:
    """One pass over `tokens`; the k likeliest next tokens after each of those from position `first` on.

    Raises FloatingPointError where logits are not numbers.
    """
    n = len(tokens)
    with torch.inference_mode():
        given = torch.tensor([tokens], device=model.device)
        states = [x[0, first:] for x in exit_states(model, given, range(1, model.size.n_layers + 1))]
        exits = torch.stack(states)
        chunks = [_of_chunk(model, exits[:, start : start + CHUNK], k) for start in range(0, n - first, CHUNK)]
        out = Predictions(*(torch.cat(parts, 1).cpu() for parts in zip(*chunks, strict=True)))
    if not out.probabilities.isfinite().all():
        layer = int((~out.probabilities.isfinite()).any(-1).any(-1).nonzero()[0]) + 1
        raise FloatingPointError(f"the exit after {layer} layers gives no numbers in {model.dtype}")
    return out


def _of_chunk(model: InferenceLlama, exits: torch.Tensor, k: int) -> Predictions:
    """Predictions from exit states [L, C, D], exit by exit: all of them at once would be L * C * V logits."""
    choice, rows = None, []
    for state in exits.flip(0):  # the last layer first, whose choice the others are asked about
        logits = model.logits(state)
        p = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)
        best = p.topk(k)
        choice = best.indices[:, :1] if choice is None else choice
        rows.append((best.indices, best.values, p.gather(-1, choice).squeeze(-1)))
    return Predictions(*(torch.stack(parts).flip(0) for parts in zip(*rows, strict=True)))


def layers_needed(best: torch.Tensor) -> torch.Tensor:
    """The first layer from which on the prediction stays the last layer's, in 1..L; [L, T] tokens -> [T]."""
    same = (best == best[-1]).long()
    return len(best) + 1 - same.flip(0).cumprod(0).sum(0)


def settled_share(needed: torch.Tensor, n_layers: int) -> list[float]:
    """For each layer 1..L, the share of the tokens [T] that need no more than it."""
    return [(needed <= layer).double().mean().item() for layer in range(1, n_layers + 1)]
