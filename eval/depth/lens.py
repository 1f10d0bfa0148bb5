"""What every exit predicts at every position of a text, and from which layer on a prediction stays (paper, s. 3).

Letters: L layers, T positions, K best tokens, V vocabulary.
"""

from typing import NamedTuple

import torch

from eval.engine.one_pass import exit_states, logit_chunks
from models.inference import InferenceLlama


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
    with torch.inference_mode():
        given = torch.tensor([tokens], device=model.device)
        states = [x[0, first:] for x in exit_states(model, given, range(1, model.size.n_layers + 1))]
        rows = [_of_exit(model, states[-1], None, k)]  # the last layer first, whose choice the others are asked about
        rows += [_of_exit(model, state, rows[0][0][:, 0], k) for state in reversed(states[:-1])]
        out = Predictions(*(torch.stack(parts).flip(0).cpu() for parts in zip(*rows, strict=True)))
    if not out.probabilities.isfinite().all():
        layer = int((~out.probabilities.isfinite()).any(-1).any(-1).nonzero()[0]) + 1
        raise FloatingPointError(f"the exit after {layer} layers gives no numbers in {model.dtype}")
    return out


def _of_exit(
    model: InferenceLlama, states: torch.Tensor, choice: torch.Tensor | None, k: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The best ids [T, K], their probabilities [T, K] and that of `choice` [T], from an exit's states [T, D].

    `choice` of None is the best id itself.
    """
    parts = []
    for start, logits in logit_chunks(model, states):
        p = logits.softmax(-1)
        best = p.topk(k)
        chosen = best.indices[:, 0] if choice is None else choice[start : start + len(p)]
        parts.append((best.indices, best.values, p.gather(-1, chosen[:, None]).squeeze(-1)))
    ids, probabilities, of_choice = (torch.cat(part) for part in zip(*parts, strict=True))
    return ids, probabilities, of_choice


def layers_needed(best: torch.Tensor) -> torch.Tensor:
    """The first layer from which on the prediction stays the last layer's, in 1..L; [L, T] tokens -> [T]."""
    same = (best == best[-1]).long()
    return len(best) + 1 - same.flip(0).cumprod(0).sum(0)


def settled_share(needed: torch.Tensor, n_layers: int) -> list[float]:
    """For each layer 1..L, the share of the tokens [T] that need no more than it."""
    return [(needed <= layer).double().mean().item() for layer in range(1, n_layers + 1)]
