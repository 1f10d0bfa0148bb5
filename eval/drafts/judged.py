"""From the rounds of a generation to the drafted tokens that the full model has judged.

A round drafts one token after another, and the full model goes through them in order. The first that it does not take
is *rejected*. Those after it were drafted after a token that is not in the text: the full model has nothing to say of
them in the place where they would stand, so they are *never judged*. Nor are those behind the end of the text.
"""

from collections.abc import Iterable
from typing import NamedTuple

from eval.engine.rows import Round


class Judged(NamedTuple):
    """A drafted token that was accepted or rejected."""

    at: int
    """Its place among the new tokens, from 0."""
    position: int
    """Its place in the draft, from 1."""
    draft: int
    """Its id."""
    full: int
    """The id that stands there in the text: its own if it was accepted, else what the full model has instead."""
    lost: int = 0
    """How many drafts fell with it, never judged."""

    @property
    def accepted(self) -> bool:
        """Whether it stands in the text."""
        return self.draft == self.full


class RoundCounts(NamedTuple):
    """What became of the drafts of a round."""

    accepted: int
    rejected: int
    """0 or 1."""
    after_rejection: int
    after_end: int

    @property
    def drafted(self) -> int:
        """All of them."""
        return sum(self)


def counts_of(round_: Round) -> RoundCounts:
    """What became of a round's drafts."""
    # A round ends with a token of the full model, unless the text ended within the drafts.
    ended_within = round_.n_drafted > 0 and round_.n_accepted == len(round_.tokens)
    n_left = round_.n_drafted - round_.n_accepted
    if ended_within or not n_left:
        return RoundCounts(round_.n_accepted, 0, 0, n_left)
    return RoundCounts(round_.n_accepted, 1, n_left - 1, 0)


def judged_in(rounds: Iterable[Round]) -> list[Judged]:
    """The judged drafts of one text, in its order."""
    out, start = [], 0
    for round_ in rounds:
        counts = counts_of(round_)
        for i, token in enumerate(round_.tokens[: counts.accepted]):
            out.append(Judged(start + i, i + 1, token, token))
        if counts.rejected:
            i = counts.accepted
            out.append(Judged(start + i, i + 1, round_.rejected[0], round_.tokens[i], counts.after_rejection))
        start += len(round_.tokens)
    return out
