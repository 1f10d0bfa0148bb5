"""Where a decoder's text parts from autoregressive decoding's, and whether rounding explains it.

Two checks. A text is compared with autoregressive decoding's, token by token; where they part, the full model's logits,
by one pass with an empty cache, must hardly prefer one token to the other. And autoregressive decoding's text, as well
as what any decoder writes after it has parted, is held against one pass over that text: each token must be the full
model's choice, or hardly less. So a mistake that all decoders share is found, too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from conf.errors import UserError
from data.tokenizers.tokenizer import Tokenizer
from eval.engine.agreement import NEAR_TIE, first_difference, gap, is_near_tie, logits_after, preferences
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import StopRule
from eval.measure.contest import Run
from eval.setting import TRANSFORMERS, Setting
from eval.tasks.task import Sample
from eval.text import continuation
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
    """`plain`: autoregressive decoding's text; `one pass`: the full model's choices, in one pass over the decoder's own
    text."""
    position: int
    """Position of the token in the new text, from 0."""
    n_tokens: int
    """Length of the new text."""
    context: str
    """The end of what stands before it."""
    got: Choice | None
    """What the decoder wrote; None where its text had ended before."""
    expected: Choice | None
    """What should stand there; None where the text should have ended before."""
    top: tuple[Choice, Choice]
    """The two largest logits of the full model there."""
    gap: float
    """From the largest logit to the smaller one of both tokens; NaN where they are no numbers."""
    bound: float
    """Below which it is a near-tie."""

    @property
    def near_tie(self) -> bool:
        """Whether rounding explains it. The end of a text is never a matter of rounding."""
        return self.got is not None and self.expected is not None and is_near_tie(self.gap, self.bound)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What was found of one decoder on one sample."""

    decoder: Setting
    n_tokens: int
    divergences: list[Divergence]
    """Where the text went wrong: nowhere if it is autoregressive decoding's, twice if its own text did after a
    near-tie."""


def bound_of(setting: Setting, near_tie: float) -> float:
    """Logits closer than that are a near-tie; those of transformers come from angles in float32 whatever the dtype."""
    return max(near_tie, NEAR_TIE[torch.float32]) if setting.mode == TRANSFORMERS else near_tie


def compare_decoders(
    model: InferenceLlama,
    tokenizer: Tokenizer,
    runs: Mapping[Setting, Run],
    sample: Sample,
    stop: StopRule,
    near_tie: float,
) -> list[Compared]:
    """Decode a sample greedily with each of `runs`, autoregressive decoding first, and hold each text against its
    measure.

    Logits closer than `near_tie` may be taken for each other (see `bound_of`).
    """
    autoregressive: list[int] | None = None
    found = []
    for setting, run in runs.items():
        text = stop.cut([], run(sample.tokens, stop, SamplingOptions()).tokens)[0]
        judge = _Judge(model, tokenizer, sample, setting, bound_of(setting, near_tie))
        if autoregressive is None:
            autoregressive = text
            divergences = judge.by_one_pass(text, 0)
        else:
            divergences = judge.by_text(text, autoregressive)
        found.append(Compared(decoder=setting, n_tokens=len(text), divergences=divergences))
    return found


class _Judge:
    """What holds one decoder's text against its measure."""

    def __init__(
        self, model: InferenceLlama, tokenizer: Tokenizer, sample: Sample, decoder: Setting, bound: float
    ) -> None:
        self.model, self.tokenizer, self.sample, self.decoder = model, tokenizer, sample, decoder
        self.bound = bound

    def by_text(self, text: list[int], autoregressive: list[int]) -> list[Divergence]:
        """Against autoregressive decoding's; after a near-tie, the rest by one pass."""
        at = first_difference(text, autoregressive)
        if at is None:
            return []
        ids = [tokens[at] if at < len(tokens) else None for tokens in (text, autoregressive)]
        first = self._divergence(text, at, ids[0], ids[1], "plain")
        return [first, *(self.by_one_pass(text, at + 1) if first.near_tie else [])]

    def by_one_pass(self, text: list[int], start: int) -> list[Divergence]:
        """From token `start` on: the first that is clearly not the full model's choice; none is what should be."""
        lost = preferences(self.model, self.sample.tokens, text)
        wrong = [i for i in range(start, len(text)) if not is_near_tie(float(lost[i]), self.bound)]
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
            bound=self.bound,
        )


def unexplained_divergences(found: Sequence[Divergence]) -> list[Divergence]:
    """The divergences that rounding does not explain."""
    return [d for d in found if not d.near_tie]
