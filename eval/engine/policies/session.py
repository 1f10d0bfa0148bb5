"""From a policy, which is a configuration, to its session, which learns."""

from eval.engine.policies.confidence import Confident
from eval.engine.policies.dynamic import Dynamic, exits_to_try
from eval.engine.policy import (
    Autoregressive,
    ConfidenceStop,
    Constant,
    DraftModel,
    DynamicExit,
    EarlyExit,
    Plan,
    Policy,
    PromptLookup,
    SelfSpeculative,
    Session,
    Source,
)
from models.config import ModelConfig
from models.speculation import head_cost


def session(policy: Policy, size: ModelConfig, draft_vocab: int | None = None) -> Session:
    """A policy at work on a model of this size, with nothing learned yet.

    `draft_vocab`: tokens that drafts are chosen from; None: all.
    """
    n_layers = size.n_layers
    match policy:
        case Autoregressive():
            return Constant(Plan(n_layers), n_layers)
        case EarlyExit(exit_layer):
            return Constant(Plan(exit_layer), n_layers)
        case SelfSpeculative(exit_layer, d, reuse):
            return Constant(Plan(exit_layer, d, reuse_exit_states=reuse), n_layers)
        case PromptLookup(d):
            return Constant(Plan(n_layers, d, reuse_exit_states=False, source=Source.text), n_layers)
        case DraftModel(exit_layer, d):
            return Constant(Plan(exit_layer, d, reuse_exit_states=False, source=Source.model), n_layers)
        case ConfidenceStop(exit_layer, d):
            return Confident(Plan(exit_layer, d), n_layers)
        case DynamicExit(exits):
            heads = head_cost(size), head_cost(size, draft_vocab)
            return Dynamic(exits or exits_to_try(n_layers), n_layers, *heads)
