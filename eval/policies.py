"""Which ways to decode: the grid that a measurement compares, and one that a user leaves open, filled in."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from conf.strict import ConfigError
from eval.config import LAYERSKIP, DraftPolicy, ExitStates, GenerateConfig, Mode
from eval.engine.checkpoint import Checkpoint
from eval.engine.decoding import check_decodable_by
from eval.engine.policies.dynamic import exits_to_try
from eval.engine.policies.session import session
from eval.engine.policy import (
    Autoregressive,
    ConfidenceStop,
    DraftModel,
    DynamicExit,
    EarlyExit,
    Policy,
    PromptLookup,
    SelfSpeculative,
    most_drafts,
)
from models.config import ModelConfig
from models.decoding_memory import DecodingMemory, decoding_memory
from models.inference import InferenceLlama
from models.part import Part
from models.storage.recommended import Recommended, default_exit, recommended

LOOKED_UP = 8
"""Drafts of prompt lookup where no number is given: they cost next to nothing."""


def policies(
    n_layers: int,
    exit_layers: Sequence[int],
    num_speculations: Sequence[int],
    *,
    modes: Sequence[Mode] = LAYERSKIP,
    exit_states: Sequence[ExitStates] = (ExitStates.reuse,),
    drafted_by: Sequence[DraftPolicy] = (DraftPolicy.fixed,),
    dynamic_exits: Sequence[int] = (),
) -> list[Policy]:
    """Autoregressive decoding, early exit at each exit, and self-speculation with each exit and each number of drafts.

    Args:
        n_layers: L.
        exit_layers: E, each in 1..L-1.
        num_speculations: d.
        modes: the others are left out unless named here; autoregressive decoding never is. Prompt lookup takes each
            number of drafts, a draft model each exit and each number of drafts.
        exit_states: kinds of verification, of fixed numbers of drafts.
        drafted_by: who decides how self-speculation drafts.
        dynamic_exits: that DraftPolicy.dynamic may choose from; (): its default.

    Raises ConfigError.
    """
    exits, drafts = drafting_exits(exit_layers, n_layers), sorted(set(num_speculations))
    early = [EarlyExit(e) for e in exits] if Mode.early_exit in modes else []
    grid = [(e, d) for e in exits for d in drafts]
    kinds = [kind is ExitStates.reuse for kind in dict.fromkeys(exit_states)]
    speculative: list[Policy] = []
    if DraftPolicy.fixed in drafted_by:
        speculative += [SelfSpeculative(e, d, reuse) for e, d in grid for reuse in kinds]
    if DraftPolicy.confidence in drafted_by:
        speculative += [ConfidenceStop(e, d) for e, d in grid]
    if DraftPolicy.dynamic in drafted_by:
        speculative.append(DynamicExit(tuple(sorted(set(dynamic_exits)))))
    found: list[Policy] = [Autoregressive(), *early, *(speculative if Mode.self_speculative in modes else [])]
    found += [PromptLookup(d) for d in drafts] if Mode.prompt_lookup in modes else []
    return found + ([DraftModel(e, d) for e, d in grid] if Mode.draft_model in modes else [])


def drafting_exits(exit_layers: Sequence[int], n_layers: int) -> list[int]:
    """The exits, each once and ascending. Raises ConfigError for one that leaves no layers to verify."""
    exits = sorted(set(exit_layers))
    for e in exits:
        if not 1 <= e < n_layers:
            raise ConfigError(f"exit_layers={e}: must lie in 1..{n_layers - 1} to leave layers to verify")
    return exits


def check_decodable(model: InferenceLlama, policy: Policy, prompt: list[int]) -> None:
    """Raise ConfigError, in one line, for a prompt or policy that the model cannot decode."""
    try:
        check_decodable_by(model, policy, prompt, model.size.max_seq_len)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def check_splits(size: ModelConfig, part: Part, policy: Policy) -> None:
    """Raise ConfigError, in one line, for what several ranks cannot decode together."""
    try:
        part.size_of(size)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if part.ranks > 1 and session(policy, size).plan(1).timed:
        raise ConfigError(
            "exit_layer: what follows measured times may differ between ranks; give exit_layer and num_speculations"
        )


def memory_of(
    policy: Policy, size: ModelConfig, max_len: int, dtype: torch.dtype, batch_size: int = 1
) -> DecodingMemory:
    """What decoding with a policy keeps, and what it would with a draft model."""
    exit_layer = None
    match policy:
        case SelfSpeculative() | ConfidenceStop() | DraftModel():
            exit_layer = policy.exit_layer
        case DynamicExit(exits):
            exit_layer = max(exits or exits_to_try(size.n_layers))
    return decoding_memory(
        size,
        max_len,
        dtype,
        batch_size=batch_size,
        exit_layer=exit_layer,
        num_speculations=most_drafts(policy),
    )


class ChosenPolicy(NamedTuple):
    """A policy, and why it is this one."""

    policy: Policy
    reason: str | None
    """Where a measurement has decided: what it says."""
    draft_vocab: int | None
    """How many tokens drafts are chosen from, those of the fastest setting unless the config says; None: all."""


def choose_policy(config: GenerateConfig, checkpoint: Checkpoint) -> ChosenPolicy:
    """The policy that the config names. What it leaves open comes from what has been measured of the checkpoint.

    With nothing measured that is self-speculation with a quarter of the layers and 3 drafts, from all tokens.

    Raises ConfigError for a key without effect.
    """
    best = recommended(checkpoint.stored.folder)
    policy, reason = _choose(config, checkpoint, best)
    measured = best.draft_vocab if best and policy != Autoregressive() else None
    return ChosenPolicy(policy, reason, config.machine.draft_vocab or measured)


def _choose(config: GenerateConfig, checkpoint: Checkpoint, best: Recommended | None) -> tuple[Policy, str | None]:
    exit_layer, d = config.exit_layer, config.num_speculations
    left_open = config.mode is None and config.policy is None and exit_layer is None and d is None
    one_layer = checkpoint.stored.size.n_layers == 1  # has none to leave before
    no_use = left_open and (one_layer or (best is not None and not best.pays))
    mode = config.mode or (Mode.autoregressive if no_use else Mode.self_speculative)
    if mode is Mode.autoregressive and exit_layer is not None:
        raise ConfigError(f"exit_layer={exit_layer}: has no effect with mode=autoregressive, which uses all layers")
    if mode is Mode.prompt_lookup and exit_layer is not None:
        raise ConfigError(
            f"exit_layer={exit_layer}: has no effect with mode=prompt_lookup, which drafts without layers"
        )
    if not mode.drafts and d is not None:
        raise ConfigError(f"num_speculations={d}: has no effect with mode={mode}, which drafts nothing")
    if mode is not Mode.self_speculative and config.policy is not None:
        raise ConfigError(f"policy={config.policy}: has no effect with mode={mode}; it is for self_speculative")
    policy = config.policy or (
        DraftPolicy(best.policy) if best and exit_layer is None and d is None else DraftPolicy.fixed
    )
    if policy is DraftPolicy.dynamic and mode is Mode.self_speculative:
        for key, value in (("exit_layer", exit_layer), ("num_speculations", d)):
            if value is not None:
                raise ConfigError(f"{key}={value}: has no effect with policy=dynamic, which chooses it; leave it out")
        chosen = f"policy=dynamic: the fastest in {best.file}" if best and config.policy is None else None
        return DynamicExit(), chosen
    reason = _reason(best, mode, exit_layer, d) if best and config.mode is None else None
    if mode is Mode.autoregressive:
        return Autoregressive(), reason
    if mode is Mode.prompt_lookup:
        return PromptLookup(LOOKED_UP if d is None else d), reason
    default = _drafting(best) or unmeasured_drafting(checkpoint)
    exit_layer = default.exit_layer if exit_layer is None else exit_layer
    if mode is Mode.early_exit:
        return EarlyExit(exit_layer), reason
    d = default.num_speculations if d is None else d
    if mode is Mode.draft_model:
        return DraftModel(exit_layer, d), reason
    confident = policy is DraftPolicy.confidence
    return ConfidenceStop(exit_layer, d) if confident else SelfSpeculative(exit_layer, d), reason


def _reason(best: Recommended, mode: Mode, exit_layer: int | None, d: int | None) -> str | None:
    if mode is Mode.autoregressive:
        return (
            f"autoregressive decoding: no setting in {best.file} is faster (the best, exit_layer={best.exit_layer}"
            f" num_speculations={best.num_speculations}, {best.speedup:.2f} times as fast); mode=self_speculative"
            " drafts all the same"
        )
    taken = [f"policy={best.policy}"] if best.policy != DraftPolicy.fixed and exit_layer is None and d is None else []
    taken += [f"exit_layer={best.exit_layer}"] if exit_layer is None else []
    taken += [f"num_speculations={best.num_speculations}"] if d is None else []
    return f"{' '.join(taken)}: the fastest in {best.file}" if taken else None


def measured_drafting(checkpoint: Checkpoint) -> SelfSpeculative | None:
    """The fastest self-speculative setting that was measured of the checkpoint; None without a measurement."""
    return _drafting(recommended(checkpoint.stored.folder))


def unmeasured_drafting(checkpoint: Checkpoint) -> SelfSpeculative:
    """A quarter of the layers and 3 drafts, where nothing was measured."""
    return SelfSpeculative(default_exit(checkpoint.stored.size.n_layers), 3)


def _drafting(best: Recommended | None) -> SelfSpeculative | None:
    return None if best is None else SelfSpeculative(best.exit_layer, best.num_speculations)
