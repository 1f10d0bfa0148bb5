"""Drafts that do not come from the first layers of the model that decides: the text's own repetitions, another model.

All layers verify such drafts, in one pass over the last token and the drafts. So the text is the full model's, as with
self-speculation; what differs is what a draft costs and how often it is right.
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F

from eval.engine.sampling import Sampler
from models.inference import InferenceLlama


class Drafts(NamedTuple):
    """Tokens that may come next."""

    tokens: torch.Tensor
    """[n], n from 0 on."""
    probabilities: torch.Tensor | None
    """[n, V], what each was drawn from; None when greedy."""


class Drafter(Protocol):
    """Writes the drafts of one text after another, round by round."""

    def begin(self, prompt: Sequence[int]) -> None:
        """A new text."""

    def draft(self, text: Sequence[int], d: int, sampler: Sampler) -> Drafts:
        """At most d tokens that may follow the text; between calls it grows, and never loses a token."""


class NgramIndex:
    """Where the last tokens of a text have stood before, as it grows."""

    def __init__(self, longest: int) -> None:
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


class LookupDrafter:
    """Prompt lookup: what followed the same few tokens earlier in prompt or output (Saxena 2023)."""

    def __init__(self, device: torch.device, vocab_size: int, longest: int) -> None:
        """`longest`: tokens that are looked up, at most."""
        self.device, self.vocab_size, self.longest = device, vocab_size, longest
        self.index = NgramIndex(longest)

    def begin(self, prompt: Sequence[int]) -> None:
        """See `Drafter`."""
        self.index = NgramIndex(self.longest)
        self.index.extend(prompt)

    def draft(self, text: Sequence[int], d: int, sampler: Sampler) -> Drafts:
        """See `Drafter`. A draft that is looked up was drawn from a distribution that has this token alone."""
        self.index.extend(text[len(self.index.text) :])
        tokens = torch.tensor(self.index.following(d), dtype=torch.int64, device=self.device)
        return Drafts(tokens, None if sampler.greedy else F.one_hot(tokens, self.vocab_size))


class ModelDrafter:
    """A model with a cache of its own writes the drafts one after another."""

    def __init__(self, model: InferenceLlama, max_len: int) -> None:
        """A text of at most `max_len` tokens."""
        self.model = model
        self.cache = model.new_cache(min(max_len, model.size.max_seq_len))
        self.positions = torch.arange(self.cache.max_len, device=model.device)

    def begin(self, prompt: Sequence[int]) -> None:
        """See `Drafter`. Reads the prompt, unless it is longer than this model's context."""
        self.cache.length = 0
        if len(prompt) <= self.cache.max_len:
            self.states(torch.tensor(prompt, device=self.model.device), 0)
            self.cache.length = len(prompt)

    def draft(self, text: Sequence[int], d: int, sampler: Sampler) -> Drafts:
        """See `Drafter`. Nothing where its context is full."""
        # Of what the cache holds beyond the text's end, all was rejected; of the text it may lack the last draft.
        held = min(self.cache.length, len(text) - 1)
        d = min(d, self.cache.max_len - len(text) + 1)
        tokens, q = list[torch.Tensor](), list[torch.Tensor]()
        if d <= 0:
            return Drafts(torch.empty(0, dtype=torch.int64, device=self.model.device), None)
        new = torch.tensor(text[held:], device=self.model.device)
        for _ in range(d):
            logits = self.model.logits(self.states(new, held)[0, -1])
            held += len(new)
            new, distribution = sampler.draft(logits)
            tokens.append(new)
            if distribution is not None:
                q.append(distribution)
        self.cache.length = held
        return Drafts(torch.cat(tokens), torch.stack(q) if q else None)

    def states(self, tokens: torch.Tensor, start: int) -> torch.Tensor:
        """Tokens [n] at the positions from `start` through all layers; [1, n, D]."""
        end = start + len(tokens)
        x = self.model.embed(tokens[None])
        return self.model.run(x, self.cache, self.positions[start:end], end, range(self.model.size.n_layers))


def first_layers(model: InferenceLlama, n_layers: int) -> InferenceLlama:
    """The first layers and the head as a model of its own, with the same weights in memory."""
    shallow, size = copy.copy(model), copy.copy(model.size)
    size.n_layers = n_layers  # a single one, too, which no model that is trained with exits has
    shallow.size, shallow.blocks, shallow.masks = size, model.blocks[:n_layers], {}
    return shallow
