"""One timed generation, and the time of each kind of pass it is made of."""

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch

from eval.engine.decoding import EarlyExit, Engine, FullDepth, Policy, Round, SelfSpeculative
from eval.engine.sampling import best
from eval.engine.stopping import StopRule
from eval.ideal import PassTimes

REPEATS = 3


class Timed(NamedTuple):
    """One text and what it took."""

    tokens: list[int]
    rounds: list[Round]
    seconds: float
    cpu_seconds: float
    """Of all threads of the process."""


def timed(engine: Engine, prompt: list[int], policy: Policy, stop: StopRule) -> Timed:
    """Decode a prompt greedily. The last round has reached the host when the clock stops."""
    wall, cpu = time.perf_counter(), time.process_time()
    rounds = list(engine.generate(prompt, policy, stop))
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    return Timed([t for r in rounds for t in r.tokens], rounds, seconds, cpu_seconds)


def pass_times(engine: Engine, prompt: list[int], policies: list[Policy], middle: int) -> dict[Policy, PassTimes]:
    """The median time of each kind of pass of each policy, at position `middle`. Overwrites the cache from there on.

    Passes are timed in the order in which decoding makes them, after another token or round of the same kind, because
    what the pass before has left in the processor's cache counts. The policies take turns with plain decoding.
    """
    clock, n_layers = _Clock(engine, prompt, middle), engine.model.size.n_layers
    samples: dict[Policy, list[PassTimes]] = {policy: [] for policy in policies}
    for _ in range(REPEATS):
        for policy in policies:
            plain = clock.prefill(n_layers), [clock.token(n_layers) for _ in range(2)][-1]
            match policy:
                case SelfSpeculative(exit_layer, d):
                    rounds = [clock.round(exit_layer, d) for _ in range(2)]
                    prefill, (drafts, *rest) = plain[0], rounds[-1]
                case EarlyExit(exit_layer):
                    prefill, rest = clock.prefill(exit_layer), [0.0, 0.0]
                    drafts = [clock.token(exit_layer) for _ in range(4)][1:]
                case FullDepth():
                    prefill, drafts, rest = plain[0], [plain[1]], [0.0, 0.0]
            samples[policy].append(PassTimes(*plain, prefill, sum(drafts) / len(drafts), *rest))
    return {p: PassTimes(*(median(column) for column in zip(*rows, strict=True))) for p, rows in samples.items()}


class _Clock:
    """The passes of the engine, one at a time, ended by what a round ends with: a token, if only on the device."""

    def __init__(self, engine: Engine, prompt: list[int], middle: int) -> None:
        self.engine, self.model, self.middle = engine, engine.model, middle
        self.tokens = torch.tensor([prompt], device=engine.model.device)

    def prefill(self, n_layers: int) -> float:
        """The prompt through some layers, and a head."""

        def call() -> torch.Tensor:
            x = self.engine.run(self.model.embed(self.tokens), 0, range(n_layers))
            return best(self.model.logits(x[0, -1]), keepdim=True)

        return self._seconds(call)

    def token(self, n_layers: int) -> float:
        """A token through some layers and the head."""

        def call() -> torch.Tensor:
            x = self.engine.run(self.model.embed(self.tokens[:, :1]), self.middle, range(n_layers))
            return best(self.model.logits(x[0, 0]), keepdim=True)

        return self._seconds(call)

    def draft(self, exit_layer: int, *, head: bool) -> float:
        """A token through the first layers, its exit state kept, and the head unless it is the last one drafted."""

        def call() -> torch.Tensor:
            x = self.engine.draft(self.tokens[0, :1], self.middle, range(exit_layer))
            return best(self.model.logits(x), keepdim=True) if head else x

        return self._seconds(call)

    def round(self, exit_layer: int, d: int) -> tuple[list[float], float, float]:
        """D drafts, the last drafted token, the verification."""
        drafts = [self.draft(exit_layer, head=True) for _ in range(d)]
        return drafts, self.draft(exit_layer, head=False), self.verify(exit_layer, d + 1)

    def verify(self, exit_layer: int, width: int) -> float:
        """So many exit states through the other layers and the head."""

        def call() -> torch.Tensor:
            states = self.engine.cache.exit_states[:, self.middle : self.middle + width]
            x = self.engine.run(states, self.middle, range(exit_layer, self.model.size.n_layers))
            return best(self.model.logits(x[0]))

        return self._seconds(call)

    def _seconds(self, call: Callable[[], torch.Tensor]) -> float:
        with torch.inference_mode():
            start = time.perf_counter()
            call()
            if self.model.device.type == "cuda":
                torch.cuda.synchronize(self.model.device)
            return time.perf_counter() - start
