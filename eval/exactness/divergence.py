"""Where a decoder's text parts from autoregressive decoding's, and whether rounding explains it.

There are two checks. The first compares a text with autoregressive decoding's, token by token. Where the two differ,
the full model's logits after their common beginning, from one pass with an empty cache, must be almost equal for both
tokens (a near-tie). The second check needs no other text: one pass over a text gives the full model's logits at each of
its tokens, and each token must be the best one there or almost. It is made of autoregressive decoding's text, and of
what a decoder writes after a near-tie. So a mistake that all decoders share is found, too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from conf.errors import UserError
from data.tokenizers.tokenizer import Tokenizer
from eval.engine.agreement import first_difference, gap, is_near_tie, logits_after, near_tie_bound, preferences
from eval.engine.rows import Request
from eval.engine.stopping import StopRule
from eval.measure.contest import Run
from eval.prompts.text import continuation
from eval.setting import TRANSFORMERS, Setting
from eval.tasks.task import Sample
from models.inference import InferenceLlama

TAIL = 60
"""Characters of the context that are shown."""


class UnexplainedError(UserError):
    """Decoders differ, and not by rounding."""

    exit_status = 1


class Choice(NamedTuple):
    """A token, and the full model's logit of it."""

    id: int
    text: str
    logit: float


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """The first token at which a text is not what it should be."""

    sample: str
    decoder: Setting
    against: str
    """What the text was compared with: `plain`, autoregressive decoding's text; `one pass`, the full model's logits."""
    position: int
    """Position of the token in the new text, from 0."""
    n_tokens: int
    """Length of the new text."""
    context: str
    """The last characters before that token."""
    got: Choice | None
    """The token that the decoder wrote; None if its text ends before this position."""
    expected: Choice | None
    """The token that is correct there; None if the correct text ends before this position."""
    top: tuple[Choice, Choice]
    """The two tokens with the largest logits of the full model at this position."""
    gap: float
    """The largest logit minus the smaller one of `got` and `expected`; NaN if they are no numbers."""
    bound: float
    """A gap below this one is a near-tie."""

    @property
    def near_tie(self) -> bool:
        """Whether rounding explains the difference; it never does where one of the texts ends."""
        return self.got is not None and self.expected is not None and is_near_tie(self.gap, self.bound)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What was found of one decoder on one sample."""

    decoder: Setting
    n_tokens: int
    divergences: list[Divergence]
    """Empty if the text is correct. After a near-tie the rest is checked by one pass, which can add a second one."""


def bound_of(setting: Setting, size: torch.Tensor, dtype: torch.dtype, near_tie: float | None = None) -> torch.Tensor:
    """The bound of a near-tie of a decoder: at least float32's for transformers, whose RoPE angles are in float32.

    Args:
        setting: the decoder.
        size: the largest logit without its sign.
        dtype: of the model.
        near_tie: steps of the dtype at that size; None: NEAR_TIE's.
    """
    bound = near_tie_bound(size, dtype, near_tie)
    return bound.maximum(near_tie_bound(size, torch.float32)) if setting.mode == TRANSFORMERS else bound


def compare_decoders(
    model: InferenceLlama,
    tokenizer: Tokenizer,
    runs: Mapping[Setting, Run],
    samples: Sequence[Sample],
    stop: StopRule,
    near_tie: float | None = None,
) -> list[Compared]:
    """Decode samples greedily with each of `runs`, autoregressive decoding first, and check each text.

    A run is given all of the samples at once. A gap of logits below `near_tie` steps is explained by rounding (see
    `bound_of`).
    """
    autoregressive: list[list[int]] = []
    found = []
    for setting, run in runs.items():
        texts = [stop.begin().cut(timed.tokens)[0] for timed in run([Request(s.tokens, stop) for s in samples])]
        autoregressive = autoregressive or texts
        for sample, text, expected in zip(samples, texts, autoregressive, strict=True):
            check = _TextCheck(model, tokenizer, sample, setting, near_tie)
            divergences = check.by_one_pass(text, 0) if texts is autoregressive else check.by_text(text, expected)
            found.append(Compared(decoder=setting, n_tokens=len(text), divergences=divergences))
    return found


class _TextCheck:
    """The checks of one decoder's text of one sample."""

    def __init__(
        self, model: InferenceLlama, tokenizer: Tokenizer, sample: Sample, decoder: Setting, near_tie: float | None
    ) -> None:
        self.model, self.tokenizer, self.sample, self.decoder = model, tokenizer, sample, decoder
        self.near_tie = near_tie

    def _bound(self, size: torch.Tensor) -> torch.Tensor:
        return bound_of(self.decoder, size, self.model.dtype, self.near_tie)

    def by_text(self, text: list[int], autoregressive: list[int]) -> list[Divergence]:
        """Compare with autoregressive decoding's text; after a near-tie check the rest by one pass."""
        at = first_difference(text, autoregressive)
        if at is None:
            return []
        ids = [tokens[at] if at < len(tokens) else None for tokens in (text, autoregressive)]
        first = self._divergence(text, at, ids[0], ids[1], "plain")
        return [first, *(self.by_one_pass(text, at + 1) if first.near_tie else [])]

    def by_one_pass(self, text: list[int], start: int) -> list[Divergence]:
        """Check the tokens from `start` on by one pass: the first that is not the best one nor a near-tie, if any."""
        lost, size = preferences(self.model, self.sample.tokens, text)
        bounds = self._bound(size)
        wrong = [i for i in range(start, len(text)) if not is_near_tie(float(lost[i]), float(bounds[i]))]
        if not wrong:
            return []
        at = wrong[0]
        best = int(logits_after(self.model, [*self.sample.tokens, *text[:at]]).argmax())
        return [self._divergence(text, at, text[at], best, "one pass")]

    def _divergence(self, text: list[int], at: int, got: int | None, expected: int | None, against: str) -> Divergence:
        context = [*self.sample.tokens, *text[:at]]
        logits = logits_after(self.model, context).cpu()

        def choice(token: int) -> Choice:
            return Choice(token, continuation(self.tokenizer, context, [token]), float(logits[token]))

        top = logits.topk(2).indices.tolist()
        both = [token for token in (got, expected) if token is not None]
        return Divergence(
            sample=self.sample.id,
            decoder=self.decoder,
            against=against,
            position=at,
            n_tokens=len(text),
            context=self.tokenizer.decode(context)[-TAIL:],
            got=None if got is None else choice(got),
            expected=None if expected is None else choice(expected),
            top=(choice(top[0]), choice(top[1])),
            gap=gap(logits, both),
            bound=float(self._bound(logits.abs().max())),
        )


def unexplained_divergences(found: Sequence[Divergence]) -> list[Divergence]:
    """The divergences that rounding does not explain."""
    return [d for d in found if not d.near_tie]
