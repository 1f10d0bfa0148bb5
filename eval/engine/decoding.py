"""The ways to decode, as generators of rounds over one model and one cache.

autoregressive   every token by all L layers
early exit       every token by the first E layers and the head
self-speculative the first E layers draft d tokens; the layers above verify all of them in one pass over the exit states
                 that the drafts left in the cache; the agreeing prefix and one token of the full model are emitted. No
                 block is computed twice for a token, and the host waits once per round.
prompt lookup    d tokens that followed the last few before; all layers verify them in one pass
draft model      another model, with a cache of its own, drafts d tokens; all layers verify them in one pass

Invariant between rounds: the cache holds positions 0 .. length-1, and the last emitted token is not yet among them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from eval.engine.drafting import Drafter, Drafts, LookupDrafter, ModelDrafter, first_layers
from eval.engine.sampling import Sampler
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import StopRule
from models.inference import InferenceLlama
from models.kvq_cache import KVQCache


@dataclass(frozen=True)
class Autoregressive:
    """Autoregressive decoding."""


@dataclass(frozen=True)
class EarlyExit:
    """Leave after `exit_layer` = E blocks."""

    exit_layer: int


@dataclass(frozen=True)
class SelfSpeculative:
    """Draft `num_speculations` = d tokens with `exit_layer` = E blocks, verify with the rest."""

    exit_layer: int
    num_speculations: int
    reuse_exit_states: bool = True
    """False: verification runs drafted tokens through all layers again, the paper's ablation (Table 7)."""


@dataclass(frozen=True)
class PromptLookup:
    """Draft at most `num_speculations` = d tokens, those that followed the last few tokens earlier in the text."""

    num_speculations: int
    longest: int = 3
    """So many last tokens are looked up; fewer where those have not stood together before."""


@dataclass(frozen=True)
class DraftModel:
    """Draft `num_speculations` = d tokens with a model of `exit_layer` = E layers that has its own cache.

    It is the engine's draft model, or, without one, the first E layers and the head as a model of its own.
    """

    exit_layer: int
    num_speculations: int


Speculative = SelfSpeculative | PromptLookup | DraftModel
"""Policies that draft tokens which all layers verify."""
Policy = Autoregressive | EarlyExit | Speculative


class Round(NamedTuple):
    """What one round emits: the first `n_accepted` tokens were drafted, the rest come from the model that decides."""

    tokens: list[int]
    n_drafted: int
    n_accepted: int
    rejected: tuple[int, ...] = ()
    """The drafted tokens that were not accepted, in order; the first of them was rejected, the others fell with it."""


def check_decodable_by(model: InferenceLlama, policy: Policy, prompt: list[int], max_len: int) -> None:
    """Raise ValueError, in one line, for what cannot be decoded."""
    n_layers = model.size.n_layers
    if not prompt:
        raise ValueError("the prompt is empty: give at least one token")
    if len(prompt) >= max_len:
        raise ValueError(f"the prompt has {len(prompt)} tokens: must be fewer than the context's {max_len}")
    if isinstance(policy, EarlyExit) and not 1 <= policy.exit_layer <= n_layers:
        raise ValueError(f"exit_layer={policy.exit_layer}: must lie in 1..{n_layers}")
    if isinstance(policy, SelfSpeculative) and not 1 <= policy.exit_layer < n_layers:
        raise ValueError(f"exit_layer={policy.exit_layer}: must lie in 1..{n_layers - 1} to leave layers to verify")
    if isinstance(policy, Speculative) and policy.num_speculations < 1:
        raise ValueError(f"num_speculations={policy.num_speculations}: must be at least 1")


def deciding_layers(policy: Policy, n_layers: int) -> int:
    """After how many layers of a model of `n_layers` the head decides about a token."""
    return policy.exit_layer if isinstance(policy, EarlyExit) else n_layers


class Engine:
    """A model and its cache, used for one sequence after another."""

    def __init__(
        self, model: InferenceLlama, max_len: int | None = None, draft_model: InferenceLlama | None = None
    ) -> None:
        """Room for `max_len` positions; None: the model's whole context. `draft_model`: see `DraftModel`.

        Raises ValueError for a draft model with another vocabulary.
        """
        if draft_model is not None and draft_model.size.vocab_size != model.size.vocab_size:
            raise ValueError(
                f"the draft model has a vocabulary of {draft_model.size.vocab_size:,}, the model one of"
                f" {model.size.vocab_size:,}: both must read and write the same tokens"
            )
        self.model, self.draft_model = model, draft_model
        self.drafters: dict[int, ModelDrafter] = {}
        self.cache: KVQCache = model.new_cache(max_len or model.size.max_seq_len)
        self.positions = torch.arange(self.cache.max_len, device=model.device)

    def generate(
        self, prompt: list[int], policy: Policy, stop: StopRule, sampling: SamplingOptions | None = None
    ) -> Iterator[Round]:
        """Decode a prompt round by round.

        Ends at `stop` or at the end of the context. Raises ValueError for a prompt or policy that cannot be decoded.
        """
        check_decodable_by(self.model, policy, prompt, self.cache.max_len)
        if isinstance(policy, DraftModel):
            self.model_drafter(policy.exit_layer)
        return self._rounds(prompt, policy, stop, Sampler(sampling or SamplingOptions(), self.model.device))

    def _rounds(self, prompt: list[int], policy: Policy, stop: StopRule, sampler: Sampler) -> Iterator[Round]:
        text, stopping = list(prompt), stop.begin()
        sampler.begin(prompt, self.model.size.vocab_size)
        drafter = self._drafter(policy)
        n_layers = deciding_layers(policy, self.model.size.n_layers)
        ended = False
        while not ended:
            with torch.inference_mode():
                if not stopping.n_tokens:
                    round_, last = self._prefill(prompt, n_layers, sampler)
                    if drafter:
                        drafter.begin(prompt)
                else:
                    # The last token stands at position `length`, so drafts have room for this many less one.
                    room = min(self.cache.max_len - self.cache.length, stop.max_new_tokens - stopping.n_tokens)
                    d = min(policy.num_speculations, room - 1) if isinstance(policy, Speculative) else 0
                    drafts = self._drafts(text, last, policy, drafter, d, sampler) if d > 0 else None
                    if drafts is not None and len(drafts.tokens):
                        round_, last = self._verified(last, policy, drafts, sampler)
                    else:
                        round_, last = self._one_token(last, n_layers, sampler)
            tokens, ended = stopping.cut(round_.tokens)
            text += tokens
            # The next token's position is `length`; without room for it the context is full.
            ended = ended or self.cache.length >= self.cache.max_len
            yield round_._replace(tokens=tokens, n_accepted=min(round_.n_accepted, len(tokens)))

    def _prefill(self, prompt: list[int], n_layers: int, sampler: Sampler) -> tuple[Round, torch.Tensor]:
        """All of the prompt in one pass; the head on its last position alone."""
        model = self.model
        tokens = torch.tensor([prompt], device=model.device)
        x = self.run(model.embed(tokens), 0, range(n_layers))
        self.cache.length = len(prompt)
        last = sampler.pick(model.logits(x[0, -1]))
        return Round(last.tolist(), 0, 0), last

    def _one_token(self, last: torch.Tensor, n_layers: int, sampler: Sampler) -> tuple[Round, torch.Tensor]:
        """The last token through the layers; the next one from the head."""
        model = self.model
        x = self.run(model.embed(last[None]), self.cache.length, range(n_layers))
        self.cache.length += 1
        last = sampler.pick(model.logits(x[0, 0]))
        return Round(last.tolist(), 0, 0), last

    def _drafts(
        self,
        text: list[int],
        last: torch.Tensor,
        policy: Speculative,
        drafter: Drafter | None,
        d: int,
        sampler: Sampler,
    ) -> Drafts:
        """At most d tokens that may follow the text, whose last token is `last`."""
        if drafter:
            return drafter.draft(text, d, sampler)
        assert isinstance(policy, SelfSpeculative)
        tokens, q, start = [last], list[torch.Tensor](), self.cache.length
        for i in range(d):
            x = self.draft(tokens[-1], start + i, range(policy.exit_layer))
            token, distribution = sampler.draft(self.model.logits(x))
            tokens.append(token)
            if distribution is not None:
                q.append(distribution)
        return Drafts(torch.cat(tokens[1:]), torch.stack(q) if q else None)

    def _verified(
        self, last: torch.Tensor, policy: Speculative, drafts: Drafts, sampler: Sampler
    ) -> tuple[Round, torch.Tensor]:
        """The drafts that the full model accepts, and a token of its own."""
        model, cache, start, d = self.model, self.cache, self.cache.length, len(drafts.tokens)
        if isinstance(policy, SelfSpeculative) and policy.reuse_exit_states:
            # Of the last drafted token, too, the verification needs the exit state and the keys below it.
            self.draft(drafts.tokens[-1:], start + d, range(policy.exit_layer))
            x = self.verify(start, d + 1, policy.exit_layer)
        else:
            tokens = torch.cat([last, drafts.tokens])
            x = self.run(model.embed(tokens[None]), start, range(model.size.n_layers))
        # The one wait of the round.
        ids, rejected, last = sampler.accept(drafts.tokens, drafts.probabilities, model.logits(x[0]))
        n_accepted = d - len(rejected)
        cache.length = start + n_accepted + 1
        return Round(ids, d, n_accepted, tuple(rejected)), last

    def _drafter(self, policy: Policy) -> Drafter | None:
        """What drafts in place of the model's first layers."""
        if isinstance(policy, PromptLookup):
            return LookupDrafter(self.model.device, self.model.size.vocab_size, policy.longest)
        return self.model_drafter(policy.exit_layer) if isinstance(policy, DraftModel) else None

    def model_drafter(self, n_layers: int) -> ModelDrafter:
        """What drafts for the policy `DraftModel`. Raises ValueError for a number of layers that it cannot have."""
        most = self.model.size.n_layers if self.draft_model is None else self.draft_model.size.n_layers
        if not 1 <= n_layers <= most or (self.draft_model is not None and n_layers != most):
            of = f"must lie in 1..{most}" if self.draft_model is None else f"must be {most}, as the draft model has"
            raise ValueError(f"exit_layer={n_layers}: {of}")
        if n_layers not in self.drafters:
            model = self.draft_model or first_layers(self.model, n_layers)
            self.drafters[n_layers] = ModelDrafter(model, self.cache.max_len)
        return self.drafters[n_layers]

    def verify(self, start: int, width: int, exit_layer: int) -> torch.Tensor:
        """The exit states of `width` positions from `start` through the layers above the exit; [1, width, D]."""
        states = self.cache.exit_states[:, start : start + width]
        return self.run(states, start, range(exit_layer, self.model.size.n_layers))

    def draft(self, token: torch.Tensor, position: int, layers: range) -> torch.Tensor:
        """A token [1] through the first layers; its exit state [D], which the cache keeps for the layers above."""
        x = self.run(self.model.embed(token[None]), position, layers)
        self.cache.exit_states.index_copy_(1, self.positions[position : position + 1], x)
        return x[0, 0]

    def run(self, x: torch.Tensor, start: int, layers: range) -> torch.Tensor:
        """Some layers on x [1, T, D] at the positions from `start`."""
        end = start + x.shape[1]
        return self.model.run(x, self.cache, self.positions[start:end], end, layers)
