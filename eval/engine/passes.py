"""The passes that rounds are made of, as functions of tensors, run as they are or compiled.

Compiled passes have static shapes: all rows of the cache, all its positions (a mask says which may be read), and the
number of tokens that was planned, whatever became of the plan. On a CPU torch.compile fuses what lies between the
matrix products; on a GPU the whole pass is also captured as a CUDA graph, so that the host starts it with one call.
"""

import os
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

import torch
import torch.nn.functional as F

from conf.machine import cache_folder
from models.inference import InferenceLlama
from models.kv_cache import KVCache

CACHE = cache_folder("compiled")
"""Where compiled code is kept for the next process, unless TORCHINDUCTOR_CACHE_DIR says otherwise."""
MOST_KINDS = 256
"""Kinds of passes that torch.compile keeps: exits, widths, with and without the head."""

Outputs = tuple[torch.Tensor, torch.Tensor]
"""States [B, T, D] and logits [B, T, V]; the states again where no head was asked for."""


class Places(NamedTuple):
    """The positions of a pass or of a round's passes."""

    positions: torch.Tensor
    """[T] of a single row, else [B, T]."""
    ends: range | list[int]
    """Of each of the T the largest position of a row, plus 1."""

    def at(self, start: int, end: int) -> "Places":
        """Some of them."""
        return Places(self.positions[..., start:end], self.ends[start:end])


class Head(Enum):
    """Which logits a pass ends with."""

    none = "none"
    full = "full"
    drafts = "drafts"
    """Of the tokens that drafts are chosen from, -inf of the others."""


class Kind(NamedTuple):
    """Which layers a pass runs."""

    start: int
    """0: from tokens [B, T] on; else from the states [B, T, D] that so many layers have left."""
    stop: int
    head: Head = Head.full


class Eager:
    """Passes as they are; they read the cache up to the last position."""

    def __init__(self, model: InferenceLlama, cache: KVCache) -> None:
        self.model, self.cache = model, cache

    def __call__(self, kind: Kind, x: torch.Tensor, places: Places, width: int) -> Outputs:
        """Tokens or states at some places through some layers; `width` is for `Compiled`."""
        return _pass(self.model, self.cache, kind, x, places.positions, places.ends[-1])


class Compiled:
    """Passes with static shapes, each compiled when it first occurs."""

    def __init__(self, model: InferenceLlama, cache: KVCache) -> None:
        self.model, self.cache = model, cache
        self.calls: dict[tuple[Kind, int], Callable[[torch.Tensor, torch.Tensor], Outputs]] = {}
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(CACHE))
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_KINDS)

    def __call__(self, kind: Kind, x: torch.Tensor, places: Places, width: int) -> Outputs:
        """Tokens or states of all rows, at places [B, T], through some layers; filled up to `width` tokens."""
        n, positions = x.shape[1], places.positions
        if more := width - n:
            x = F.pad(x, (0, 0, 0, more) if kind.start else (0, more))
            positions = F.pad(positions, (0, more), value=self.cache.max_len)
        if (kind, width) not in self.calls:
            self.calls[kind, width] = self._compiled(kind)
        states, logits = self.calls[kind, width](x, positions)
        return states[:, :n], logits[:, :n]

    def _compiled(self, kind: Kind) -> Callable[[torch.Tensor, torch.Tensor], Outputs]:
        model, cache = self.model, self.cache

        def call(x: torch.Tensor, positions: torch.Tensor) -> Outputs:
            return _pass(model, cache, kind, x, positions, cache.max_len + 1)

        compiled = torch.compile(call, dynamic=False)
        return CudaGraph(compiled) if model.device.type == "cuda" else compiled


class CudaGraph:
    """A pass that is captured at its first call and replayed after it."""

    def __init__(self, call: Callable[[torch.Tensor, torch.Tensor], Outputs]) -> None:
        self.call = call
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, x: torch.Tensor, positions: torch.Tensor) -> Outputs:
        """What the pass gives, in tensors that the next call leaves as they are."""
        graph = self.graph or self._capture(x, positions)
        for static, given in zip(self.inputs, (x, positions), strict=True):
            static.copy_(given)
        graph.replay()
        states, logits = self.outputs
        return states.clone(), logits.clone()

    def _capture(self, x: torch.Tensor, positions: torch.Tensor) -> torch.cuda.CUDAGraph:
        """Compile and warm up beside the current stream, as torch asks for, then record."""
        self.inputs = x.clone(), positions.clone()
        aside: torch.cuda.Stream = torch.cuda.Stream(x.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(aside):
            for _ in range(2):
                self.call(*self.inputs)
        torch.cuda.current_stream(x.device).wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = self.call(*self.inputs)
        return self.graph


def _pass(
    model: InferenceLlama, cache: KVCache, kind: Kind, x: torch.Tensor, positions: torch.Tensor, end: int
) -> Outputs:
    states = model.run(x if kind.start else model.embed(x), cache, positions, end, range(kind.start, kind.stop))
    match kind.head:
        case Head.none:
            return states, states
        case Head.drafts:
            return states, model.draft_logits(states)
        case Head.full:
            return states, model.logits(states)
