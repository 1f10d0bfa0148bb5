"""The texts that are written at the same time, one in each row of the cache, and what a round adds to one of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from eval.engine.drafting import NgramIndex
from eval.engine.sampling import Sampler
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import Stopping, StopRule


class Round(NamedTuple):
    """What one round emits: the first `n_accepted` tokens were drafted, the rest come from the model that decides."""

    tokens: list[int]
    n_drafted: int
    n_accepted: int
    rejected: tuple[int, ...] = ()
    """The drafted tokens that were not accepted, in order; the first of them was rejected, the others fell with it."""
    exit_layer: int | None = None
    """E of the draft; None where nothing was drafted."""
    ends: bool = False
    """Whether the text ends with it."""


@dataclass(frozen=True)
class Request:
    """A prompt to continue."""

    prompt: Sequence[int]
    """At least one token."""
    stop: StopRule
    sampling: SamplingOptions = field(default_factory=SamplingOptions)


@dataclass
class Row:
    """A request at work."""

    number: int
    """Of the request, from 0, in the order in which requests came."""
    request: Request
    sampler: Sampler
    stopping: Stopping
    index: NgramIndex = field(default_factory=NgramIndex)
    """Of the text so far, where drafts are looked up in it."""
    emitted: list[int] = field(default_factory=list)
    """The new tokens. The last of them is not in the cache yet."""
    ended: bool = False

    @property
    def last(self) -> int:
        """The token that the next pass reads."""
        return self.emitted[-1]

    @property
    def last_two(self) -> list[int]:
        """That token and the one before it."""
        return [*self.request.prompt[-1:], *self.emitted][-2:]

    def following(self, d: int) -> list[int]:
        """At most d tokens that have followed the text's last few earlier in it."""
        if not self.index.text:
            self.index.extend(self.request.prompt)
        self.index.extend(self.emitted[len(self.index.text) - len(self.request.prompt) :])
        return self.index.following(d)

    @property
    def missing(self) -> int:
        """How many tokens the text may still get."""
        return self.request.stop.max_new_tokens - len(self.emitted)

    def take(self, round_: Round, *, full: bool) -> Round:
        """Add a round to the text, and return what of it the text has; `full`: the cache has no room for another."""
        tokens, ended = self.stopping.cut(round_.tokens)
        self.emitted += tokens
        self.ended = ended or full
        return round_._replace(tokens=tokens, n_accepted=min(round_.n_accepted, len(tokens)), ends=self.ended)
