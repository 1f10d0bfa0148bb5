"""Tokens for all rows of a batch. Greedy rows are one operation; rows that draw do so with a generator each.

So what a row draws depends on its seed and its text alone, whatever the other rows do.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from eval.engine.sampling import Sampler, best
from models.kernels.few_tokens import Tokens


class Accepted(NamedTuple):
    """What becomes of a row's drafts."""

    tokens: list[int]
    """The accepted drafts and one token of the full model."""
    rejected: list[int]
    """The drafts that are not accepted."""


def pick(samplers: Sequence[Sampler], logits: torch.Tensor) -> list[int]:
    """The next token of each row from logits [B, V]. Waits for the device."""
    if all(s.plain for s in samplers):
        return best(logits).tolist()
    return torch.cat([s.pick(row) for s, row in zip(samplers, logits, strict=True)]).tolist()


class Drafts:
    """The drafts of a round, as they grow."""

    def __init__(self, samplers: Sequence[Sampler], rooms: Sequence[int]) -> None:
        """`rooms`: how many drafts each row can take; behind them it drafts what nothing depends on."""
        self.samplers, self.rooms = samplers, rooms
        self.greedy = all(s.plain for s in samplers)
        self.tokens: list[torch.Tensor] = []
        """Of one step or several in succession, [B, n]."""
        self.distributions: list[list[torch.Tensor]] = [[] for _ in samplers]
        """Of each row those [n, V] that its drafts were drawn from; none of a greedy one's."""

    @classmethod
    def known(
        cls,
        samplers: Sequence[Sampler],
        rooms: Sequence[int],
        ids: Sequence[Sequence[int]],
        vocab_size: int,
        device: torch.device,
    ) -> "Drafts":
        """Drafts that nothing was drawn for: each has a distribution of which it is the only token.

        `ids` may have more rows than there are texts, as passes of static shapes have.
        """
        rooms = [min(room, len(row)) for room, row in zip(rooms, ids, strict=False)]
        drafts, width = cls(samplers, rooms), max(rooms)
        filled = [[*row[:width], *[0] * (width - len(row))] for row in ids]
        tokens = torch.tensor(filled, dtype=torch.int64, device=device)
        drafts.tokens = [tokens]
        for sampler, row, distributions, room in zip(samplers, tokens, drafts.distributions, rooms, strict=False):
            if not sampler.greedy:
                distributions.append(F.one_hot(row[:room], vocab_size))
        return drafts

    @classmethod
    def of(cls, samplers: Sequence[Sampler], rooms: Sequence[int], found: Tokens) -> "Drafts":
        """Drafts that have been chosen in succession, as the samplers' choices for so much room say."""
        drafts = cls(samplers, rooms)
        drafts.tokens = [found.ids]
        for sampler, distributions, q, room in zip(samplers, drafts.distributions, found.q, rooms, strict=True):
            if not sampler.greedy:
                distributions.append(q[:room])
        return drafts

    def __len__(self) -> int:
        return sum(tokens.shape[1] for tokens in self.tokens)

    def add(self, logits: torch.Tensor) -> torch.Tensor:
        """Draft a token for each row from logits [B, V]; [B, 1]. B may be larger than the number of texts."""
        if self.greedy:
            token = best(logits, keepdim=True)
        else:
            token = torch.stack([self._draw(i, row) for i, row in enumerate(logits)])
        self.tokens.append(token)
        return token

    def _draw(self, row: int, logits: torch.Tensor) -> torch.Tensor:
        if row >= len(self.rooms) or len(self) >= self.rooms[row]:
            return best(logits, keepdim=True)
        token, distribution = self.samplers[row].draft(logits)
        if distribution is not None:
            self.distributions[row].append(distribution[None])
        return token

    def confidences(self, logits: torch.Tensor) -> list[float]:
        """The probability of each row's last draft under what it was drawn from, or under logits [B, V] if greedy."""
        # On a CPU softmax is one kernel and logsumexp are five: a third of the time.
        sure = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32)).amax(-1).tolist()
        for i, distributions in enumerate(self.distributions):
            if len(distributions) == len(self):
                sure[i] = float(distributions[-1][0, self.tokens[-1][i]])
        return sure

    def accept(self, logits: torch.Tensor) -> list[Accepted]:
        """What the full model's logits [B, d+1, V], before each draft and after the last, leave of each row's drafts.

        Waits for the device: once if all rows are greedy.
        """
        drafted = torch.cat(self.tokens, 1)[: len(self.rooms)]
        rooms = [min(room, len(self)) for room in self.rooms]
        if self.greedy:
            both = torch.cat([drafted, best(logits)], 1).tolist()
            return [_agreeing(ids[: len(self)], ids[len(self) :], room) for ids, room in zip(both, rooms, strict=True)]
        return [self._accepted(i, drafted[i, :room], logits[i, : room + 1]) for i, room in enumerate(rooms)]

    def _accepted(self, row: int, drafted: torch.Tensor, logits: torch.Tensor) -> Accepted:
        sampler, q = self.samplers[row], self.distributions[row]
        if not len(drafted):
            return Accepted(sampler.pick(logits[0]).tolist(), [])
        ids, rejected, _ = sampler.accept(drafted, torch.cat(q) if q else None, logits)
        return Accepted(ids, rejected)


def _agreeing(drafted: list[int], choices: list[int], room: int) -> Accepted:
    """The drafts up to the first that is not the full model's choice, and that choice."""
    n = next((i for i in range(room) if drafted[i] != choices[i]), room)
    return Accepted([*drafted[:n], choices[n]], drafted[n:room])
