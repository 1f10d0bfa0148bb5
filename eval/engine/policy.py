"""What a round of decoding does, and who decides it: policies, plans and outcomes.

A policy is a configuration, without state. Its session (eval.engine.policies) is made once per engine and lives as
long: it is asked for a plan before each round and told the outcome after it. All that is learned is shared between the
sequences of the engine, whether they come one after another or as rows of a batch; nothing is kept per sequence. A plan
holds for all rows of a round.

Every plan leaves the text as it is: greedy tokens are those of the full model, sampled ones are drawn from its
distribution, because a plan is made before any of its round's tokens exist, from tokens that have been emitted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

MOST_DRAFTS = 12
"""d, at most, where a policy chooses it."""


class Source(StrEnum):
    """Where drafts come from."""

    first_layers = "first_layers"
    """The first layers of the model itself, whose work verification takes over."""
    text = "text"
    """What followed the last few tokens earlier in the text."""
    model = "model"
    """Another model, with a cache of its own."""


class Plan(NamedTuple):
    """What the next round does."""

    exit_layer: int
    """E, the blocks that draft; with nothing to draft, the blocks after which the head decides."""
    num_speculations: int = 0
    """d, the most tokens to draft; 0: one token without a draft."""
    stop_below: float | None = None
    """End the draft after a token whose probability under the draft, its confidence, is smaller. That costs a wait for
    the device per drafted token, which on a CPU is nothing. 0 reads confidences and never stops; None reads none."""
    probe: tuple[int, ...] = ()
    """Other exits, ascending, whose agreement with the full model is to be found out in this round; a head each."""
    timed: bool = False
    """Measure seconds, which waits for the device once more, between draft and verification."""
    reuse_exit_states: bool = True
    """False: verification runs drafted tokens through all layers again."""
    source: Source = Source.first_layers
    """Where the drafts come from; with `model`, the exit_layer is the number of that model's layers."""


class Outcome(NamedTuple):
    """What became of a plan. A batch has an item per row where a tuple is."""

    plan: Plan
    n_drafted: int
    """By each row; fewer than planned where the draft ended early."""
    n_accepted: tuple[int, ...]
    """Drafted tokens that the full model accepted. The next one, if there is one, was rejected; nothing is known of
    those behind it."""
    confidences: tuple[tuple[float, ...], ...] = ()
    """Of each drafted token; () where the plan reads none."""
    draft_seconds: float | None = None
    """Of all passes of the first E layers."""
    verify_seconds: float | None = None
    """From there until the tokens have reached the host; of a round without a draft, all of it."""
    agreements: Mapping[int, tuple[tuple[float, ...], ...]] = {}
    """Exit layer -> for each of a row's n_accepted + 1 emitted tokens, the chance that this exit's draft of it would
    have been accepted; greedy: 0 or 1."""


class Session(Protocol):
    """A policy at work on an engine. Plans are quick to make: some microseconds."""

    def plan(self, room: int) -> Plan:
        """What to do next, with at most `room` drafted tokens (0 or more)."""
        ...

    def learn(self, outcome: Outcome) -> None:
        """Hear what became of the last plan."""
        ...


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
class ConfidenceStop:
    """Draft with `exit_layer` = E blocks until the draft is unsure of a token, at most `num_speculations` = d tokens.

    Unsure: less confident than the middle between the mean confidence of accepted and of rejected drafts.
    """

    exit_layer: int
    num_speculations: int


@dataclass(frozen=True)
class DynamicExit:
    """In each round the E and d of the most tokens per second, by what has been accepted and the time of passes."""

    exit_layers: tuple[int, ...] = ()
    """The exits to choose from, ascending; (): five of the lower half of the layers."""


@dataclass(frozen=True)
class PromptLookup:
    """Draft at most `num_speculations` = d tokens, those that followed the last few tokens earlier in the text."""

    num_speculations: int


@dataclass(frozen=True)
class DraftModel:
    """Draft `num_speculations` = d tokens with a model of `exit_layer` = E layers that has its own cache.

    It is the engine's draft model, or, without one, the first E layers and the head as a model of its own.
    """

    exit_layer: int
    num_speculations: int


Steady = Autoregressive | EarlyExit | SelfSpeculative | PromptLookup | DraftModel
"""Policies whose rounds are all the same, so that one of them can be timed for all."""
Policy = Steady | ConfidenceStop | DynamicExit
Drafting = SelfSpeculative | ConfidenceStop | DynamicExit | PromptLookup | DraftModel
"""Policies whose text is the full model's."""


class Constant:
    """The session of a policy that does the same in every round and learns nothing."""

    def __init__(self, plan: Plan, n_layers: int) -> None:
        self._plan, self._plain = plan, Plan(n_layers)

    def plan(self, room: int) -> Plan:
        """The same, with fewer drafts where there is less room, and a plain token where there is none."""
        plan = self._plan
        if plan.num_speculations <= room:
            return plan
        return plan._replace(num_speculations=room) if room else self._plain

    def learn(self, outcome: Outcome) -> None:
        """Nothing."""


def most_drafts(policy: Policy) -> int:
    """The largest number of tokens that a round may draft."""
    match policy:
        case SelfSpeculative(_, d) | ConfidenceStop(_, d) | DraftModel(_, d) | PromptLookup(d):
            return d
        case DynamicExit():
            return MOST_DRAFTS
        case _:
            return 0


def deciding_layers(policy: Policy, n_layers: int) -> int:
    """After how many layers of a model of `n_layers` the head decides about a token."""
    return policy.exit_layer if isinstance(policy, EarlyExit) else n_layers


def check_fits(policy: Policy, n_layers: int) -> None:
    """Raise ValueError, in one line, for a policy that a model of `n_layers` cannot follow."""
    if isinstance(policy, EarlyExit) and not 1 <= policy.exit_layer <= n_layers:
        raise ValueError(f"exit_layer={policy.exit_layer}: must lie in 1..{n_layers}")
    exits: tuple[int, ...] = policy.exit_layers if isinstance(policy, DynamicExit) else ()
    if isinstance(policy, SelfSpeculative | ConfidenceStop):
        exits = (policy.exit_layer,)
    if not isinstance(policy, Autoregressive | EarlyExit) and most_drafts(policy) < 1:
        raise ValueError(f"num_speculations={most_drafts(policy)}: must be at least 1")
    for exit_layer in exits:
        if not 1 <= exit_layer < n_layers:
            raise ValueError(f"exit_layer={exit_layer}: must lie in 1..{n_layers - 1} to leave layers to verify")
    if isinstance(policy, DynamicExit) and n_layers < 2:
        raise ValueError("policy=dynamic: a model of one layer has no exit to draft with")
