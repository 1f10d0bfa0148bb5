"""Is one greedy text another's, and if not, was it a toss-up? And does a text repeat itself?"""

from collections.abc import Iterator, Sequence

import torch

from eval.engine.one_pass import logits_by_exit
from models.inference import InferenceLlama

# A pass of another width rounds differently. Two texts may part where the two best logits are closer than that.
NEAR_TIE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.25}


def first_difference(a: Sequence[int], b: Sequence[int]) -> int | None:
    """Where two token sequences part (a missing token differs from any); None if they are equal."""
    for i in range(max(len(a), len(b))):
        if i >= len(a) or i >= len(b) or a[i] != b[i]:
            return i
    return None


def is_near_tie(gap: float, bound: float) -> bool:
    """Whether rounding explains a choice that lies so far (`gap`, in units of a logit) below the best one.

    False for a gap that is no number.
    """
    return gap < bound


def near_tie_after(model: InferenceLlama, context: list[int], one: int, other: int) -> bool:
    """Whether the full model, after `context`, hardly prefers one token to the other, and prefers none to both.

    Hardly: by less than NEAR_TIE of the model's dtype.
    """
    return is_near_tie(gap(logits_after(model, context), (one, other)), NEAR_TIE[model.dtype])


def gap(logits: torch.Tensor, tokens: Sequence[int]) -> float:
    """From the largest of the logits [V] to the smallest of these tokens'; NaN where they are no numbers.

    Both tokens count, since one of the two best must not hide a bad choice.
    """
    return float(logits.max() - logits[list(tokens)].min())


@torch.inference_mode()
def logits_after(model: InferenceLlama, context: list[int]) -> torch.Tensor:
    """[V] float64, of the full model, by one pass over the context with an empty cache."""
    [(_, logits)] = _full_model(model, context, range(len(context) - 1, len(context)))
    return logits[0].double()


@torch.inference_mode()
def preferences(model: InferenceLlama, prompt: list[int], text: list[int]) -> torch.Tensor:
    """By how much the full model prefers its best token to each one of a text; [T] float64, 0 where it is the best.

    By one pass over all of it, with an empty cache: what any greedy decoder's text can be held against.
    """
    tokens, context = torch.tensor(text, device=model.device), [*prompt, *text[:-1]]
    lost = []
    for start, logits in _full_model(model, context, range(len(prompt) - 1, len(context))):
        of_text = logits.gather(-1, tokens[start : start + len(logits), None]).squeeze(-1)
        lost.append(logits.max(-1).values.double() - of_text.double())
    return torch.cat(lost).cpu()


def _full_model(model: InferenceLlama, tokens: list[int], at: range) -> Iterator[tuple[int, torch.Tensor]]:
    """Chunks of the last layer's logits at some positions."""
    given, places = (torch.tensor(x, device=model.device) for x in ([tokens], list(at)))
    [chunks] = logits_by_exit(model, given, [model.size.n_layers], places)
    return chunks


def distinct_4grams(texts: Sequence[Sequence[int]]) -> float:
    """Share of different runs of 4 tokens among all, by text, averaged; 1 for texts too short to have any.

    A model that loops is easily fast: its drafts are easily right.
    """
    shares = []
    for text in texts:
        grams = [tuple(text[i : i + 4]) for i in range(len(text) - 3)]
        shares.append(len(set(grams)) / len(grams) if grams else 1.0)
    return sum(shares) / len(shares)
