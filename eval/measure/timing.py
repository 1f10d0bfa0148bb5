"""One timed generation, and the time of each kind of pass it is made of."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

import torch

from eval.engine.decoding import Engine
from eval.engine.passes import Head, Places
from eval.engine.policy import Autoregressive, DraftModel, EarlyExit, Policy, PromptLookup, SelfSpeculative, Steady
from eval.engine.rows import Request, Round
from eval.engine.sampling import Sampler, best
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import StopRule
from models.kernels.few_tokens import FewTokens, Tokens


class PassTimes(NamedTuple):
    """Seconds of each kind of pass of a policy at its own width, beside autoregressive decoding's; medians, save
    prefills. Of a pass over several rows it is one row's share.
    """

    autoregressive_prefill: float
    """The prompt through all layers, and a head."""
    autoregressive_token: float
    """One token through all layers and the head."""
    prefill: float
    """The prompt through the layers this policy prefills, and a head."""
    draft: float
    """One token through the first E layers and the head."""
    last_draft: float
    """One token through the first E layers: the last drafted one, of which only keys and exit state are needed."""
    verify: float
    """d + 1 exit states through the other layers, and the head on all of them."""
    weight_bytes: float = 0.0
    """Bytes of weights that autoregressive decoding reads for a token; of its own times alone, as the next."""
    matrix_vector: float = 0.0
    """A product of one matrix of as many bytes, in fp32, with a vector: what the memory's bandwidth allows."""


TIMED_ROUNDS = 3
LARGEST_MATRIX = 1 << 29
"""Bytes of the matrix that shows the bandwidth, at most; the time for more weights is taken in proportion."""


class Timed(NamedTuple):
    """One text and what it took."""

    tokens: list[int]
    rounds: list[Round]
    seconds: float
    cpu_seconds: float
    """Processor time of all threads of the process."""
    round_seconds: Sequence[float] = ()
    """Seconds of each round; the first one is the prefill."""


def timed(
    engine: Engine, prompt: list[int], policy: Policy, stop: StopRule, sampling: SamplingOptions | None = None
) -> Timed:
    """Decode a prompt. Every round has reached the host when its clock stops."""
    [text] = timed_together(engine, [Request(prompt, stop, sampling or SamplingOptions())], policy)
    return text


def timed_together(engine: Engine, requests: Sequence[Request], policy: Policy) -> list[Timed]:
    """Decode prompts at the same time. The rows of a pass have an equal share of its time each."""
    rounds: list[list[Round]] = [[] for _ in requests]
    seconds: list[list[float]] = [[] for _ in requests]
    cpu_seconds = [0.0] * len(requests)
    cpu, tick = time.process_time(), time.perf_counter()
    for step in engine.generate_all(requests, policy):
        cpu_before, cpu, before, tick = cpu, time.process_time(), tick, time.perf_counter()
        for number, round_ in step:
            rounds[number].append(round_)
            seconds[number].append((tick - before) / len(step))
            cpu_seconds[number] += (cpu - cpu_before) / len(step)
    return [
        Timed([t for r in of_text for t in r.tokens], of_text, sum(steps), cpu_time, steps)
        for of_text, steps, cpu_time in zip(rounds, seconds, cpu_seconds, strict=True)
    ]


def pass_times(
    engine: Engine, token: int, policies: Sequence[Steady], prefills: Mapping[Steady, float], middle: int
) -> dict[Steady, PassTimes]:
    """The median time of each kind of pass of each policy, at position `middle`. Overwrites the cache from there on.

    Passes are timed in the order in which decoding makes them, after another token or round of the same kind, because
    what the pass before has left in the processor's cache counts. The policies take turns with autoregressive decoding.

    Args:
        engine: which makes them.
        token: to make them with.
        policies: Autoregressive() among them.
        prefills: seconds that the prompt has taken each of them; a long one is too dear to be run again.
        middle: at least as many positions must follow as the widest verification has.
    """
    clock, n_layers = _Clock(engine, token, middle), engine.model.size.n_layers
    samples: dict[Steady, list[PassTimes]] = {policy: [] for policy in policies}
    for _ in range(TIMED_ROUNDS):
        for policy in policies:
            autoregressive = prefills[Autoregressive()], [clock.token(n_layers) for _ in range(2)][-1]
            match policy:
                case SelfSpeculative():
                    rounds = [clock.round(policy) for _ in range(2)]
                    drafts, *rest = rounds[-1]
                case PromptLookup(d):
                    drafts, rest = [0.0], [0.0, [clock.recompute(d + 1) for _ in range(2)][-1]]
                case DraftModel(exit_layer, d):
                    other = _Clock(engine.drafting_engine(exit_layer), token, middle)
                    drafts = [other.draft(exit_layer) for _ in range(d + 1)][1:]
                    rest = [0.0, [clock.recompute(d + 1) for _ in range(2)][-1]]
                case EarlyExit(exit_layer):
                    rest = [0.0, 0.0]
                    drafts = [clock.token(exit_layer) for _ in range(4)][1:]
                case Autoregressive():
                    drafts, rest = [autoregressive[1]], [0.0, 0.0, *clock.matrix_vector()]
            samples[policy].append(PassTimes(*autoregressive, prefills[policy], sum(drafts) / len(drafts), *rest))
    return {p: PassTimes(*(median(column) for column in zip(*rows, strict=True))) for p, rows in samples.items()}


class _Clock:
    """The passes of the engine, one at a time, ended by what a round ends with: a token, if only on the device."""

    def __init__(self, engine: Engine, token: int, middle: int) -> None:
        self.engine, self.model = engine, engine.model
        self.tokens = torch.tensor([[token]] * engine.batch_size, device=engine.model.device)
        engine.cache.lengths = [middle] * engine.batch_size
        self.samplers = [Sampler(SamplingOptions(), engine.model.device)] * engine.batch_size

    def token(self, n_layers: int) -> float:
        """A token through some layers and the head."""

        def call() -> torch.Tensor:
            if few := self.engine.few(self.samplers, Head.full):
                return self._in_succession(few, n_layers, 1, read_last=False).ids
            return best(self.engine.below(self.tokens, self._places(1), n_layers, Head.full)[1])

        return self._seconds(call)

    def matrix_vector(self) -> tuple[float, float]:
        """Bytes of weights for a token, and the seconds of a matrix-vector product that reads as many."""
        n_bytes = sum(tensor.nbytes for matrix in self.model.matrices() for tensor in matrix.tensors())
        width, device = self.model.size.dim, self.model.device
        n_rows = max(1, min(n_bytes, LARGEST_MATRIX) // (4 * width))
        matrix, vector = torch.ones(n_rows, width, device=device), torch.ones(width, device=device)
        seconds = [self._seconds(lambda: torch.mv(matrix, vector)) for _ in range(2)][-1]
        return n_bytes / len(self.tokens), seconds * n_bytes / matrix.nbytes

    def draft(self, exit_layer: int, head: Head = Head.drafts) -> float:
        """A token through the first layers, its exit state kept, and a head unless it is the last one drafted."""

        def call() -> torch.Tensor:
            x, logits = self.engine.below(self.tokens, self._places(1), exit_layer, head)
            return x if head is Head.none else best(logits)

        return self._seconds(call)

    def round(self, policy: SelfSpeculative) -> tuple[list[float], float, float]:
        """The drafts, the last drafted token (nothing where all is recomputed), the verification."""
        e, d, reads = policy.exit_layer, policy.num_speculations, policy.reuse_exit_states
        if few := self.engine.few(self.samplers, Head.drafts):
            together = self._seconds(lambda: self._in_succession(few, e, d, read_last=reads).ids)
            last = self._seconds(lambda: self._in_succession(few, e, 0, read_last=True).ids) if reads else 0.0
            drafts = [(together - last) / d] * d
        else:
            drafts = [self.draft(e) for _ in range(d)]
            last = self.draft(e, Head.none) if reads else 0.0
        return drafts, last, self.verify(e, d + 1) if reads else self.recompute(d + 1)

    def _in_succession(self, few: FewTokens, n_layers: int, steps: int, *, read_last: bool) -> Tokens:
        """Greedy tokens."""
        at, choices = self._places(steps + read_last).positions, [s.choice(steps) for s in self.samplers]
        return few(self.tokens, self.engine.cache, at, n_layers, steps, choices, read_last=read_last)

    def verify(self, exit_layer: int, width: int) -> float:
        """So many exit states through the other layers and the head."""
        states = self.model.embed(self.tokens.expand(-1, width))
        return self._seconds(lambda: best(self.engine.verify(states, self._places(width), exit_layer, width)))

    def recompute(self, width: int) -> float:
        """So many tokens through all layers and the head."""

        def call() -> torch.Tensor:
            return best(self.engine.recompute(self.tokens.expand(-1, width), self._places(width), width))

        return self._seconds(call)

    def _places(self, width: int) -> Places:
        return self.engine.places(len(self.tokens), width)

    def _seconds(self, call: Callable[[], torch.Tensor]) -> float:
        with torch.inference_mode():
            start = time.perf_counter()
            call()
            if self.model.device.type == "cuda":
                torch.cuda.synchronize(self.model.device)
            return (time.perf_counter() - start) / len(self.tokens)
