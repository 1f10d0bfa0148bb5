"""What draft and full model thought of each judged draft, from one pass over the finished text.

Every draft that was judged stood behind a beginning of the text itself, so that one pass over prompt and text meets the
very states that the engine had: those after the exit decide what is drafted, those after the last layer what is taken.
Decoding itself is left alone. That the pass finds the same drafts and the same tokens as the engine did is checked.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from eval.drafts.judged import Judged
from eval.engine.agreement import is_near_tie, near_tie_bound
from eval.engine.one_pass import exit_states, logit_chunks
from models.inference import InferenceLlama

# Positions that go through the head at once: V numbers for each, of both models.
CHUNK = 64


class Thought(NamedTuple):
    """What both models thought of one judged draft; distributions are of the models themselves (temperature 1)."""

    rank: int
    """Rank of the draft in the full model's distribution; 1 is the likeliest."""
    rank_of_full: int
    """Rank of the text's token in the draft model's distribution."""
    full_probability: float
    """Probability that the full model gives to the draft."""
    confidence: float
    """Probability that the draft model gives to the draft."""
    entropy: float
    """Entropy of the draft model's distribution, in bits."""
    full_gap: float
    """By how much the full model prefers another token to the text's, in units of a logit; greedily 0."""
    draft_gap: float
    """By how much the draft model prefers another token to the draft; greedily 0."""
    size: float
    """The largest logit of the two without its sign."""


def replay(
    model: InferenceLlama, prompt: Sequence[int], new: Sequence[int], exit_layer: int, judged: Sequence[Judged]
) -> list[Thought]:
    """One pass over the prompt and its new tokens.

    Raises FloatingPointError where logits are not numbers.
    """
    if not judged:
        return []
    tokens = torch.tensor([[*prompt, *new][:-1]], device=model.device)
    # The token at a place is chosen by the state of the token before it.
    places = torch.tensor([len(prompt) + j.at - 1 for j in judged], device=model.device)
    drafts = torch.tensor([[j.draft] for j in judged], device=model.device)
    full = torch.tensor([[j.full] for j in judged], device=model.device)
    with torch.inference_mode():
        draft_states, full_states = (
            x[0, places] for x in exit_states(model, tokens, [exit_layer, model.size.n_layers])
        )
        chunks = zip(logit_chunks(model, draft_states), logit_chunks(model, full_states), strict=True)
        rows = []
        for (start, draft_logits), (_, full_logits) in chunks:
            here = slice(start, start + len(full_logits))
            rows.append(_thoughts(draft_logits, full_logits, drafts[here], full[here]))
        found = torch.cat(rows).cpu()
    if not found.isfinite().all():
        raise FloatingPointError(f"logits in {model.dtype} are not numbers")
    return [Thought(int(rank), int(of_full), *rest) for rank, of_full, *rest in found.tolist()]


def disagrees(thought: Thought, dtype: torch.dtype) -> bool | None:
    """Whether a greedy engine in this dtype did something else than the pass says; None for a toss-up (a near-tie)."""
    gap = max(thought.full_gap, thought.draft_gap)
    if gap == 0:
        return False
    return None if is_near_tie(gap, float(near_tie_bound(torch.tensor(thought.size), dtype))) else True


def _thoughts(low: torch.Tensor, high: torch.Tensor, drafts: torch.Tensor, full: torch.Tensor) -> torch.Tensor:
    """`Thought` of logits [N, V] of draft and full model and tokens [N, 1]; [N, 8] float64."""
    p, q = high.softmax(-1), low.softmax(-1)
    columns = [
        (high > high.gather(-1, drafts)).sum(-1, keepdim=True) + 1,
        (low > low.gather(-1, full)).sum(-1, keepdim=True) + 1,
        p.gather(-1, drafts),
        q.gather(-1, drafts),
        -torch.xlogy(q, q).sum(-1, keepdim=True).clamp_max(0) / math.log(2),
        high.amax(-1, keepdim=True) - high.gather(-1, full),
        low.amax(-1, keepdim=True) - low.gather(-1, drafts),
        torch.maximum(low.abs().amax(-1, keepdim=True), high.abs().amax(-1, keepdim=True)),
    ]
    return torch.cat([c.double() for c in columns], -1)
