"""Is one greedy text another's, and if not, was it a toss-up? And does a text repeat itself?"""

from collections.abc import Sequence

import torch

from models.inference import InferenceLlama

# A pass of another width rounds differently. Two texts may part where the two best logits are closer than that.
NEAR_TIE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.25}

# Positions that go through the head at once: V numbers for each.
CHUNK = 64


def first_difference(a: Sequence[int], b: Sequence[int]) -> int | None:
    """Where two token sequences part (a missing token differs from any); None if they are equal."""
    for i in range(max(len(a), len(b))):
        if i >= len(a) or i >= len(b) or a[i] != b[i]:
            return i
    return None


def is_near_tie(model: InferenceLlama, context: list[int], one: int, other: int) -> bool:
    """Whether the full model, after `context`, hardly prefers one token to the other, and prefers none to both.

    Hardly: by less than NEAR_TIE of the model's dtype, in units of a logit.
    """
    return gap(logits_after(model, context), (one, other)) < NEAR_TIE[model.dtype]


def gap(logits: torch.Tensor, tokens: Sequence[int]) -> float:
    """From the largest of the logits [V] to the smallest of these tokens'; NaN where they are no numbers.

    Both tokens count, since one of the two best must not hide a bad choice.
    """
    return float(logits.max() - logits[list(tokens)].min())


def logits_after(model: InferenceLlama, context: list[int]) -> torch.Tensor:
    """[V] float64, of the full model, by one pass over the context with an empty cache."""
    return model.logits(_states(model, context)[-1]).double()


def preferences(model: InferenceLlama, prompt: list[int], text: list[int]) -> torch.Tensor:
    """By how much the full model prefers its best token to each one of a text; [T] float64, 0 where it is the best.

    By one pass over all of it, with an empty cache: what any greedy decoder's text can be held against.
    """
    states, tokens = _states(model, [*prompt, *text[:-1]])[len(prompt) - 1 :], torch.tensor(text, device=model.device)
    lost = []
    for start in range(0, len(text), CHUNK):
        logits = model.logits(states[start : start + CHUNK]).double()
        own = logits.gather(-1, tokens[start : start + CHUNK, None]).squeeze(-1)
        lost.append(logits.max(-1).values - own)
    return torch.cat(lost).cpu()


@torch.inference_mode()
def _states(model: InferenceLlama, tokens: list[int]) -> torch.Tensor:
    """[T, D], what the last layer puts out."""
    cache, n = model.new_cache(len(tokens)), len(tokens)
    x = model.embed(torch.tensor([tokens], device=model.device))
    return model.run(x, cache, torch.arange(n, device=model.device), n, range(model.size.n_layers))[0]


def distinct_4grams(texts: Sequence[Sequence[int]]) -> float:
    """Share of different runs of 4 tokens among all, by text, averaged; 1 for texts too short to have any.

    A model that loops is easily fast: its drafts are easily right.
    """
    shares = []
    for text in texts:
        grams = [tuple(text[i : i + 4]) for i in range(len(text) - 3)]
        shares.append(len(set(grams)) / len(grams) if grams else 1.0)
    return sum(shares) / len(shares)
