"""One timed generation, and the time of each kind of pass it is made of."""

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import NamedTuple

import torch

from eval.engine.decoding import EarlyExit, Engine, Policy, Round, SelfSpeculative
from eval.engine.sampling import best
from eval.engine.stopping import StopRule
from eval.ideal import PassTimes

REPEATS = 5


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

    Passes are timed in the order in which a round makes them, because a pass is faster when the one before has left its
    weights in the processor's cache. The policies take turns with plain decoding.
    """
    clock, n_layers = _Clock(engine, prompt, middle), engine.model.size.n_layers
    samples: dict[Policy, list[list[float]]] = {policy: [] for policy in policies}
    for _ in range(REPEATS):
        for policy in policies:
            e, d = clock.shape(policy)
            kinds = [partial(clock.prefill, n_layers), partial(clock.token, n_layers, head=True)] * 2
            kinds += [partial(clock.prefill, n_layers if d else e)]
            kinds += [partial(clock.token, e, head=True)] * max(d, 2)
            kinds += [partial(clock.token, e, head=False), partial(clock.verify, e, d + 1)] if d else []
            seconds = [clock.seconds(kind) for kind in kinds]
            # The first plain passes still have to find their weights where others have been.
            drafts = seconds[5 : 5 + max(d, 2)]
            samples[policy].append([*seconds[2:5], sum(drafts) / len(drafts), *(seconds[-2:] if d else (0.0, 0.0))])
    return {p: PassTimes(*(median(column) for column in zip(*rows, strict=True))) for p, rows in samples.items()}


class _Clock:
    """The passes of the engine, one at a time, ended by what a round ends with: a token on the host."""

    def __init__(self, engine: Engine, prompt: list[int], middle: int) -> None:
        self.engine, self.model, self.middle = engine, engine.model, middle
        self.prompt = torch.tensor([prompt], device=engine.model.device)

    def shape(self, policy: Policy) -> tuple[int, int]:
        """Layers of the policy's draft (or of all it does) and tokens drafted per round."""
        match policy:
            case SelfSpeculative(exit_layer, d):
                return exit_layer, d
            case EarlyExit(exit_layer):
                return exit_layer, 0
        return self.model.size.n_layers, 0

    def seconds(self, call: Callable[[], object]) -> float:
        with torch.inference_mode():
            start = time.perf_counter()
            call()
            if self.model.device.type == "cuda":
                torch.cuda.synchronize(self.model.device)
            return time.perf_counter() - start

    def prefill(self, n_layers: int) -> object:
        x = self._run(self.model.embed(self.prompt), 0, range(n_layers))
        return best(self.model.logits(x[0, -1]), keepdim=True)

    def token(self, n_layers: int, *, head: bool) -> object:
        x = self._run(self.model.embed(self.prompt[:, :1]), self.middle, range(n_layers))
        return best(self.model.logits(x[0, 0]), keepdim=True) if head else x

    def verify(self, exit_layer: int, width: int) -> object:
        states = self.engine.cache.exit_states[:, self.middle : self.middle + width]
        x = self._run(states, self.middle, range(exit_layer, self.model.size.n_layers))
        return best(self.model.logits(x[0]))

    def _run(self, x: torch.Tensor, start: int, layers: range) -> torch.Tensor:
        end = start + x.shape[1]
        return self.model.run(x, self.engine.cache, self.engine.positions[start:end], end, layers)
