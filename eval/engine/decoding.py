"""The three ways to decode, as generators of rounds over one model and one cache.

autoregressive   every token by all L layers
early exit       every token by the first E layers and the head
self-speculative the first E layers draft d tokens; the layers above verify all of them in one pass over the exit states
                 that the drafts left in the cache; the agreeing prefix and one token of the full model are emitted. No
                 block is computed twice for a token, and the host waits once per round.

Invariant between rounds: the cache holds positions 0 .. length-1, and the last emitted token is not yet among them.
"""

from collections.abc import Iterator
from time import perf_counter
from typing import NamedTuple

import torch

from eval.engine.policies.session import session
from eval.engine.policy import Outcome, Plan, Policy, Session, check_fits, deciding_layers
from eval.engine.sampling import Sampler, confidence
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import StopRule
from models.inference import InferenceLlama
from models.kvq_cache import KVQCache


class Round(NamedTuple):
    """What one round emits: the first `n_accepted` tokens were drafted, the rest come from the model that decides."""

    tokens: list[int]
    n_drafted: int
    n_accepted: int
    rejected: tuple[int, ...] = ()
    """The drafted tokens that were not accepted, in order; the first of them was rejected, the others fell with it."""
    exit_layer: int | None = None
    """E of the draft; None where nothing was drafted."""


def check_decodable_by(model: InferenceLlama, policy: Policy, prompt: list[int], max_len: int) -> None:
    """Raise ValueError, in one line, for what cannot be decoded."""
    if not prompt:
        raise ValueError("the prompt is empty: give at least one token")
    if len(prompt) >= max_len:
        raise ValueError(f"the prompt has {len(prompt)} tokens: must be fewer than the context's {max_len}")
    check_fits(policy, model.size.n_layers)


class Passing:
    """The states of a round's tokens at probed exits, caught on their way up."""

    def __init__(self, exits: tuple[int, ...]) -> None:
        self.exits = exits
        self._caught: dict[int, list[torch.Tensor]] = {}

    def catch(self, exit_layer: int, x: torch.Tensor) -> None:
        """States [1, T, D] of the next tokens of the round."""
        self._caught.setdefault(exit_layer, []).append(x)

    @property
    def states(self) -> dict[int, torch.Tensor]:
        """Exit layer -> [1, d + 1, D]."""
        return {e: torch.cat(parts, 1) for e, parts in self._caught.items()}


NOTHING = Passing(())


class Engine:
    """A model and its cache, used for one sequence after another."""

    def __init__(self, model: InferenceLlama, max_len: int | None = None) -> None:
        """Room for `max_len` positions; None: the model's whole context."""
        self.model = model
        self.cache: KVQCache = model.new_cache(max_len or model.size.max_seq_len)
        self.positions = torch.arange(self.cache.max_len, device=model.device)
        self.sessions: dict[Policy, Session] = {}
        """What each policy has learned, over all sequences."""

    def generate(
        self, prompt: list[int], policy: Policy, stop: StopRule, sampling: SamplingOptions | None = None
    ) -> Iterator[Round]:
        """Decode a prompt round by round.

        Ends at `stop` or at the end of the context. Raises ValueError for a prompt or policy that cannot be decoded.
        """
        check_decodable_by(self.model, policy, prompt, self.cache.max_len)
        return self._rounds(prompt, policy, stop, Sampler(sampling or SamplingOptions(), self.model.device))

    def session(self, policy: Policy) -> Session:
        """The policy's, made when it is first asked for."""
        if policy not in self.sessions:
            self.sessions[policy] = session(policy, self.model.size)
        return self.sessions[policy]

    def _rounds(self, prompt: list[int], policy: Policy, stop: StopRule, sampler: Sampler) -> Iterator[Round]:
        emitted: list[int] = []
        at_work = self.session(policy)
        ended = False
        while not ended:
            with torch.inference_mode():
                if not emitted:
                    round_, last = self._prefill(prompt, deciding_layers(policy, self.model.size.n_layers), sampler)
                else:
                    # The last token stands at position `length`, so drafts have room for this many less one.
                    room = min(self.cache.max_len - self.cache.length, stop.max_new_tokens - len(emitted))
                    plan = at_work.plan(room - 1)
                    step = self._speculate if plan.num_speculations else self._one_token
                    round_, last, outcome = step(last, plan, sampler)
                    at_work.learn(outcome)
            tokens, ended = stop.cut(emitted, round_.tokens)
            emitted += tokens
            # The next token's position is `length`; without room for it the context is full.
            ended = ended or self.cache.length >= self.cache.max_len
            yield round_._replace(tokens=tokens, n_accepted=min(round_.n_accepted, len(tokens)))

    def _prefill(self, prompt: list[int], n_layers: int, sampler: Sampler) -> tuple[Round, torch.Tensor]:
        """All of the prompt in one pass; the head on its last position alone."""
        model = self.model
        tokens = torch.tensor([prompt], device=model.device)
        x = self.run(model.embed(tokens), 0, range(n_layers))
        self.cache.length = len(prompt)
        last, _ = sampler.pick(model.logits(x[0, -1]))
        return Round(last.tolist(), 0, 0), last

    def _one_token(self, last: torch.Tensor, plan: Plan, sampler: Sampler) -> tuple[Round, torch.Tensor, Outcome]:
        """The last token through the layers; the next one from the head."""
        model, begun = self.model, perf_counter()
        x = self.run(model.embed(last[None]), self.cache.length, range(plan.exit_layer))
        self.cache.length += 1
        last, _ = sampler.pick(model.logits(x[0, 0]))
        ids = last.tolist()
        return Round(ids, 0, 0), last, Outcome(plan, 0, (0,), verify_seconds=perf_counter() - begun)

    def _speculate(self, last: torch.Tensor, plan: Plan, sampler: Sampler) -> tuple[Round, torch.Tensor, Outcome]:
        """Draft tokens, verify them, accept."""
        model, cache, start = self.model, self.cache, self.cache.length
        low, begun = range(plan.exit_layer), perf_counter()
        drafted, q, confidences = [last], list[torch.Tensor](), list[float]()
        passing = Passing(plan.probe)
        below = passing if plan.reuse_exit_states else NOTHING
        for i in range(plan.num_speculations):
            logits = model.logits(self.draft(drafted[-1], start + i, low, below))
            token, distribution = sampler.pick(logits)
            drafted.append(token)
            if distribution is not None:
                q.append(distribution)
            if plan.stop_below is not None:
                # The token stays in the draft whatever it is, and only whether another follows depends on it. So each
                # drafted token is a draw from its whole q, which is what makes acceptance exact. Were the token itself
                # left out for its confidence, the others would be too frequent.
                confidences.append(confidence(logits, token, distribution))
                if confidences[-1] < plan.stop_below:
                    break
        d = len(drafted) - 1
        if plan.reuse_exit_states:
            # Of the last drafted token, too, the verification needs the exit state and the keys below it.
            self.draft(drafted[-1], start + d, low, below)
        between = self._now() if plan.timed else None
        if plan.reuse_exit_states:
            x = self.verify(start, d + 1, plan.exit_layer, passing)
        else:
            x = self.through(model.embed(torch.cat(drafted)[None]), start, range(model.size.n_layers), passing)
        tokens = torch.cat(drafted[1:])
        # The one wait of the round.
        logits = model.logits(x[0])
        ids, rejected, last = sampler.accept(tokens, torch.stack(q) if q else None, logits)
        n_accepted = d - len(rejected)
        cache.length = start + n_accepted + 1
        outcome = Outcome(
            plan,
            d,
            (n_accepted,),
            (tuple(confidences),) if confidences else (),
            between and between - begun,
            between and perf_counter() - between,
            {e: (sampler.agreement(model.logits(x[0, : n_accepted + 1]), logits),) for e, x in passing.states.items()},
        )
        return Round(ids, d, n_accepted, tuple(rejected), plan.exit_layer), last, outcome

    def _now(self) -> float:
        """Seconds, once the device has done what it has been given."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        return perf_counter()

    def verify(self, start: int, width: int, exit_layer: int, passing: Passing = NOTHING) -> torch.Tensor:
        """The exit states of `width` positions from `start` through the layers above the exit; [1, width, D]."""
        states = self.cache.exit_states[:, start : start + width]
        return self.through(states, start, range(exit_layer, self.model.size.n_layers), passing)

    def draft(self, token: torch.Tensor, position: int, layers: range, passing: Passing = NOTHING) -> torch.Tensor:
        """A token [1] through the first layers; its exit state [D], which the cache keeps for the layers above."""
        x = self.through(self.model.embed(token[None]), position, layers, passing)
        self.cache.exit_states.index_copy_(1, self.positions[position : position + 1], x)
        return x[0, 0]

    def through(self, x: torch.Tensor, start: int, layers: range, passing: Passing) -> torch.Tensor:
        """`run`, with a stop at each exit that is probed."""
        begin = layers.start
        for exit_layer in passing.exits:
            if begin < exit_layer < layers.stop:
                x = self.run(x, start, range(begin, exit_layer))
                passing.catch(exit_layer, x)
                begin = exit_layer
        return self.run(x, start, range(begin, layers.stop))

    def run(self, x: torch.Tensor, start: int, layers: range) -> torch.Tensor:
        """Some layers on x [1, T, D] at the positions from `start`."""
        end = start + x.shape[1]
        return self.model.run(x, self.cache, self.positions[start:end], end, layers)
