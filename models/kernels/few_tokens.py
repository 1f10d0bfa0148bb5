"""Our own successive tokens on a CPU (few_tokens.c): drafts, or the next token of a text, in one call.

A draft through a few blocks of a small model is a dozen calls, which take as long as its blocks.
"""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch

from models.kernels.few_blocks import FewBlocks, Pass
from models.kernels.few_rows import FewRows, Norm
from models.kv_cache import KVCache


class _Head(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int)]
    _fields_ += [(name, ctypes.c_void_p) for name in ("w", "scale")]
    _fields_ += [("n_out", ctypes.c_long)]
    _fields_ += [(name, ctypes.c_void_p) for name in ("norm", "ids")]


class _Choices(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("temperature", "drawn", "u", "q")]
    _fields_ += [("vocabulary", ctypes.c_long)]


class _Tokens(ctypes.Structure):
    _fields_ = [
        ("pass_", Pass),
        ("blocks", ctypes.c_void_p),
        ("n_blocks", ctypes.c_long),
        ("n_positions", ctypes.c_long),
        ("embedding", ctypes.c_void_p),
        ("head", _Head),
        ("choices", _Choices),
        ("steps", ctypes.c_long),
        ("read_last", ctypes.c_int),
        ("ids", ctypes.c_void_p),
    ]


class Choice(NamedTuple):
    """How a row's tokens are chosen: the first len(u) are drawn, the ones after are the likeliest."""

    temperature: float
    u: torch.Tensor
    """[steps or fewer] float64 on the CPU, uniform in [0, 1)."""


GREEDY = Choice(0.0, torch.empty(0))


class Tokens(NamedTuple):
    """What has been chosen."""

    ids: torch.Tensor
    """[B, steps] int64."""
    states: torch.Tensor
    """Of the token before each of them, and of the last one if it was to be read, [B, steps or steps + 1, D]."""
    q: torch.Tensor
    """[B, steps, V] fp32: what a row's first len(u) tokens were drawn from, the others undefined; no steps if none was
    drawn."""


class FewTokens:
    """The embedding, the blocks and a head of a model; `few_tokens` makes it where there is one."""

    def __init__(
        self, blocks: FewBlocks, embedding: torch.Tensor, head: FewRows, norm: Norm, ids: torch.Tensor | None
    ) -> None:
        self.blocks, self.embedding = blocks, embedding
        self.kept = head, norm, ids  # what is read is kept alive
        at = None if ids is None else ids.data_ptr()
        self.head = _Head(head.kind, head.at, head.scale_at, head.n_out, norm.at, at)

    def takes(self, batch: int, kv: KVCache) -> bool:
        """Whether it is the way to go on with so many rows."""
        return self.blocks.takes(batch, kv)

    def __call__(
        self,
        last: torch.Tensor,
        kv: KVCache,
        positions: torch.Tensor,
        n_layers: int,
        steps: int,
        choices: Sequence[Choice],
        *,
        read_last: bool,
    ) -> Tokens:
        """Go on after the last tokens of B rows.

        Args:
            last: [B] or [B, 1] int64, not in the cache yet.
            kv: of the model.
            positions: [T] of a single row, or [B, T]: of the last tokens and of those that are chosen after them.
            n_layers: a token passes through the first so many blocks.
            steps: tokens to choose, T - 1 at most, or T without `read_last`.
            choices: of each row.
            read_last: the last of them passes through the blocks, too.
        """
        batch, n_passes, (vocab_size, dim) = len(last), steps + read_last, self.embedding.shape
        ids = torch.empty(steps + 1, batch, dtype=torch.int64)
        ids[0] = last.view(-1)
        states = torch.empty(n_passes, batch, dim, dtype=self.embedding.dtype)
        of_step = positions.t().contiguous()
        temperature = torch.tensor([choice.temperature for choice in choices])
        drawn = torch.tensor([len(choice.u) for choice in choices])
        n_drawn = steps if any(len(choice.u) for choice in choices) else 0
        u, q = torch.empty(batch, n_drawn, dtype=torch.float64), torch.empty(batch, n_drawn, vocab_size)
        for row, choice in zip(u, choices, strict=True):
            row[: len(choice.u)] = choice.u
        tokens = _Tokens(
            self.blocks.pass_of(states, batch, 1, kv, of_step, 0),
            *(ctypes.addressof(self.blocks.blocks), n_layers, 1 if positions.dim() == 1 else batch),
            *(self.embedding.data_ptr(), self.head),
            _Choices(temperature.data_ptr(), drawn.data_ptr(), u.data_ptr(), q.data_ptr(), vocab_size),
            *(steps, read_last, ids.data_ptr()),
        )
        if self.blocks.library.few_tokens(ctypes.byref(tokens)):
            raise MemoryError("successive tokens found no memory")
        return Tokens(ids[1:].t(), states.transpose(0, 1), q)


def few_tokens(
    blocks: FewBlocks | None, embedding: torch.Tensor, head: FewRows | None, norm: Norm, ids: torch.Tensor | None
) -> FewTokens | None:
    """Successive tokens of a model; None where its blocks or its head are not ours.

    Args:
        blocks: all of the model's.
        embedding: [V, D], of the number format of the states.
        head: its rows are those of the embedding's width.
        norm: before the head.
        ids: [N] int64, ascending: the tokens of the head's outputs; None: all.
    """
    if blocks is None or head is None:
        return None
    return FewTokens(blocks, embedding.contiguous(), head, norm, ids)
