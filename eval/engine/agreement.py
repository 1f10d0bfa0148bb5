"""Is one greedy text another's, and if not, was it a toss-up? And does a text repeat itself?"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from eval.engine.one_pass import logits_by_exit
from models.inference import InferenceLlama

NEAR_TIE = {torch.float64: 64.0, torch.float32: 256.0, torch.float16: 8.0, torch.bfloat16: 8.0}
"""A pass of another width rounds differently. Two texts may part where the two best logits are closer than so many
steps of the dtype at the size of the logits. Seen between passes of 1, 4 and 96 tokens, over 96 positions, was an error
of that difference of at most 6 steps in float64, 14 in float32, 2.5 in float16, 4 in bfloat16 (SmolLM2-135M, the demo);
float32 has more room because transformers takes the angles of late positions in it."""


def step(size: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """From a number of this size to the next one that the dtype has, in float64; 0.125 for 20 in bfloat16."""
    exponent = torch.frexp(size.double().clamp_min(torch.finfo(torch.float32).tiny)).exponent - 1
    return torch.finfo(dtype).eps * exponent.double().exp2()


def near_tie_bound(size: torch.Tensor, dtype: torch.dtype, steps: float | None = None) -> torch.Tensor:
    """Gaps below it are near-ties, in units of a logit.

    Args:
        size: the largest logit without its sign, of one position or of several.
        dtype: that the logits were made in.
        steps: of the dtype; None: NEAR_TIE's.
    """
    return step(size, dtype) * (NEAR_TIE[dtype] if steps is None else steps)


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


def near_tie_after(model: InferenceLlama, context: list[int], one: int, other: int, room: float = 1.0) -> bool:
    """Whether the full model, after `context`, hardly prefers one token to the other, and prefers none to both.

    Hardly: by less than `room` times `near_tie_bound`.
    """
    logits = logits_after(model, context)
    return is_near_tie(gap(logits, (one, other)), room * float(near_tie_bound(logits.abs().max(), model.dtype)))


class Same(NamedTuple):
    """How some texts compare with those of another decoder."""

    identical: int
    near_ties: int
    """Others that part where the full model hardly prefers one token to the other."""
    n_texts: int

    @property
    def holds(self) -> bool:
        """Whether rounding explains every difference."""
        return self.identical + self.near_ties == self.n_texts


def same_texts(
    model: InferenceLlama,
    prompts: Sequence[list[int]],
    ones: Sequence[list[int]],
    others: Sequence[list[int]],
    room: float = 1.0,
) -> Same:
    """Compare the new tokens that two decoders give to the same prompts; `room` as of `near_tie_after`."""
    identical = ties = 0
    for prompt, a, b in zip(prompts, ones, others, strict=True):
        at = first_difference(a, b)
        identical += at is None
        if at is not None and at < min(len(a), len(b)):
            ties += near_tie_after(model, [*prompt, *a[:at]], a[at], b[at], room)
    return Same(identical, ties, len(prompts))


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


class Preferences(NamedTuple):
    """What the full model thinks of each token of a text; [T] float64 each, on the CPU."""

    lost: torch.Tensor
    """By how much it prefers its best token, in units of a logit; 0 where the text has it."""
    size: torch.Tensor
    """The largest of its logits without their signs."""


@torch.inference_mode()
def preferences(model: InferenceLlama, prompt: list[int], text: list[int]) -> Preferences:
    """What the full model thinks of a text.

    By one pass over all of it, with an empty cache: what any greedy decoder's text can be held against.
    """
    tokens, context = torch.tensor(text, device=model.device), [*prompt, *text[:-1]]
    lost, sizes = [], []
    for start, logits in _full_model(model, context, range(len(prompt) - 1, len(context))):
        of_text = logits.gather(-1, tokens[start : start + len(logits), None]).squeeze(-1)
        lost.append(logits.max(-1).values.double() - of_text.double())
        sizes.append(logits.abs().amax(-1).double())
    return Preferences(torch.cat(lost).cpu(), torch.cat(sizes).cpu())


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
