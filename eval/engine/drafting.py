"""Drafts that do not come from the first layers of the model that decides: the text's own repetitions, another model.

All layers verify such drafts, in one pass over the last token and the drafts. So the text is the full model's, as with
self-speculation; what differs is what a draft costs and how often it is right.
"""

import copy
from collections.abc import Sequence

from models.inference import InferenceLlama

LONGEST = 3
"""So many last tokens of a text are looked up, or fewer where those have not stood together before."""


class NgramIndex:
    """Where the last tokens of a text have stood before, as it grows: prompt lookup (Saxena 2023)."""

    def __init__(self, longest: int = LONGEST) -> None:
        """Of up to `longest` tokens."""
        self.longest = longest
        self.text: list[int] = []
        self._followers: dict[tuple[int, ...], int] = {}

    def extend(self, tokens: Sequence[int]) -> None:
        """The text goes on with these tokens."""
        for token in tokens:
            # An n-gram is entered once a token follows it, so that the end of the text does not find itself.
            end = len(self.text)
            for n in range(1, min(self.longest, end) + 1):
                self._followers[tuple(self.text[end - n :])] = end
            self.text.append(token)

    def following(self, d: int) -> list[int]:
        """At most d tokens that followed the longest end of the text that has stood before, at its latest place."""
        for n in range(min(self.longest, len(self.text)), 0, -1):
            at = self._followers.get(tuple(self.text[-n:]))
            if at is not None:
                return self.text[at : at + d]
        return []


def first_layers(model: InferenceLlama, n_layers: int) -> InferenceLlama:
    """The first layers and the head as a model of its own, with the same weights in memory."""
    shallow, size = copy.copy(model), copy.copy(model.size)
    size.n_layers = n_layers  # a single one, too, which no model that is trained with exits has
    shallow.size, shallow.blocks, shallow.masks = size, model.blocks[:n_layers], {}
    return shallow
