"""Is one greedy text another's, and if not, was it a toss-up? And does a text repeat itself?"""

from collections.abc import Sequence

import torch

from models.inference import InferenceLlama

# A pass of another width rounds differently. Two texts may part where the two best logits are closer than that.
NEAR_TIE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.25}


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
    with torch.inference_mode():
        cache, n = model.new_cache(len(context)), len(context)
        tokens = torch.tensor([context], device=model.device)
        layers = range(model.size.n_layers)
        x = model.run(model.embed(tokens), cache, torch.arange(n, device=model.device), n, layers)
        logits = model.logits(x[0, -1]).double()
        return bool(logits.max() - torch.minimum(logits[one], logits[other]) < NEAR_TIE[model.dtype])


def distinct_4grams(texts: Sequence[Sequence[int]]) -> float:
    """Share of different runs of 4 tokens among all, by text, averaged; 1 for texts too short to have any.

    A model that loops is easily fast: its drafts are easily right.
    """
    shares = []
    for text in texts:
        grams = [tuple(text[i : i + 4]) for i in range(len(text) - 3)]
        shares.append(len(set(grams)) / len(grams) if grams else 1.0)
    return sum(shares) / len(shares)
