"""One timed generation, and the time of each kind of pass it is made of."""

import time
from collections.abc import Callable
from functools import partial
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
    """The median time of each kind of pass of each policy, at position `middle`.

    Overwrites the cache from `middle` on. What policies share (a plain token, a draft of as many layers) is measured
    once, the kinds in turn, so that a machine that changes its speed changes it for all.
    """
    clock = _Clock(engine, prompt, middle)
    n_layers = engine.model.size.n_layers
    exits = sorted({_exit(p, n_layers) for p in policies} - {n_layers})
    widths = {e: range(1, 2 + max(_drafts(p) for p in policies if _exit(p, n_layers) == e)) for e in exits}
    kinds: dict[tuple, Callable[[], object]] = {}
    for e in (*exits, n_layers):
        kinds["prefill", e] = partial(clock.prefill, e)
        kinds["token", e] = partial(clock.token, e, head=True)
    for e in exits:
        kinds["blocks", e] = partial(clock.token, e, head=False)
        kinds |= {("verify", e, width): partial(clock.verify, e, width) for width in widths[e]}
    samples: dict[tuple, list[float]] = {kind: [] for kind in kinds}
    for _ in range(REPEATS):
        for kind, call in kinds.items():
            samples[kind].append(clock.seconds(call))
    times = {kind: sorted(s)[REPEATS // 2] for kind, s in samples.items()}
    return {
        p: PassTimes(
            plain_prefill=times["prefill", n_layers],
            plain_token=times["token", n_layers],
            prefill=times["prefill", _exit(p, n_layers) if isinstance(p, EarlyExit) else n_layers],
            draft=times["token", _exit(p, n_layers)],
            last_draft=times.get(("blocks", _exit(p, n_layers)), 0.0),
            verify=tuple(times["verify", p.exit_layer, width] for width in widths[p.exit_layer])
            if isinstance(p, SelfSpeculative)
            else (),
        )
        for p in policies
    }


def _exit(policy: Policy, n_layers: int) -> int:
    return policy.exit_layer if isinstance(policy, EarlyExit | SelfSpeculative) else n_layers


def _drafts(policy: Policy) -> int:
    return policy.num_speculations if isinstance(policy, SelfSpeculative) else 0


class _Clock:
    """The passes of the engine, one at a time, ended by what a round ends with: a token on the host."""

    def __init__(self, engine: Engine, prompt: list[int], middle: int) -> None:
        self.engine, self.model, self.middle = engine, engine.model, middle
        self.prompt = torch.tensor([prompt], device=engine.model.device)

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
