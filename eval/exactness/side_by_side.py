"""The texts of several ways to decode one prompt, and where each parts from autoregressive decoding's."""

from collections.abc import Sequence
from dataclasses import dataclass

from eval.engine.agreement import first_difference, near_tie_after
from eval.engine.decoding import Engine
from eval.engine.policy import Autoregressive, EarlyExit, Policy
from eval.engine.rows import Round
from eval.engine.stopping import StopRule
from eval.measure.timing import Timed, timed


@dataclass(frozen=True, kw_only=True)
class Side:
    """One text."""

    policy: Policy
    run: Timed
    layers_per_token: float
    """Passes through a layer, whatever their width, per token."""
    differs_at: int | None
    """The first token that is not autoregressive decoding's; None if the texts are the same."""
    near_tie: bool
    """Whether the full model hardly prefers one of the two tokens there: a difference that rounding explains."""


def side_by_side(engine: Engine, prompt: list[int], policies: Sequence[Policy], stop: StopRule) -> list[Side]:
    """Decode greedily: first autoregressively, which is the first of the sides, then with each of the policies."""
    autoregressive = timed(engine, prompt, Autoregressive(), stop)
    sides = [_side(engine, prompt, Autoregressive(), autoregressive, autoregressive)]
    return sides + [_side(engine, prompt, p, timed(engine, prompt, p, stop), autoregressive) for p in policies]


def _side(engine: Engine, prompt: list[int], policy: Policy, run: Timed, autoregressive: Timed) -> Side:
    at = first_difference(run.tokens, autoregressive.tokens)
    near_tie = False
    if at is not None and at < min(len(run.tokens), len(autoregressive.tokens)):
        near_tie = near_tie_after(
            engine.model, prompt + autoregressive.tokens[:at], run.tokens[at], autoregressive.tokens[at]
        )
    return Side(
        policy=policy,
        run=run,
        layers_per_token=layers_per_token(run.rounds, policy, engine.model.size.n_layers),
        differs_at=at,
        near_tie=near_tie,
    )


def layers_per_token(rounds: Sequence[Round], policy: Policy, n_layers: int) -> float:
    """How many layers are passed through, one after another, for each token of a text, the prompt's pass included.

    A round of d drafts passes d + 1 times through the first E layers and once through the others.
    """
    match policy:
        case Autoregressive():
            return float(n_layers)
        case EarlyExit(exit_layer):
            return float(exit_layer)
        case _:
            passes = n_layers * len(rounds) + sum(r.n_drafted * (r.exit_layer or 0) for r in rounds)
            return passes / sum(len(r.tokens) for r in rounds)
