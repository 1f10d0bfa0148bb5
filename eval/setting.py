"""How something was decoded, in words and numbers: the one conversion of a policy, and the one label."""

from typing import NamedTuple, Self

from eval.config import DraftPolicy, ExitStates, Mode
from eval.engine.policy import (
    Autoregressive,
    ConfidenceStop,
    DraftModel,
    DynamicExit,
    EarlyExit,
    Policy,
    PromptLookup,
    SelfSpeculative,
)

BASELINE = "baseline"
"""Mode of a second checkpoint, decoded autoregressively."""
TRANSFORMERS = "transformers"
"""Mode of the yardstick: the same weights in transformers' generate."""


class Setting(NamedTuple):
    """A mode with its numbers. Result files have the fields under their names."""

    mode: str
    """A Mode, or BASELINE or TRANSFORMERS."""
    exit_layer: int
    """E; of a draft model its layers; all layers in modes that do not leave early, 0 where each round chooses."""
    num_speculations: int = 0
    """d, or the most of it with policy=confidence; 0 in modes that draft nothing and where each round chooses."""
    exit_states: str | None = None
    """reuse or recompute; None in modes without drafts of an exit."""
    policy: str | None = None
    """confidence or dynamic; None where every round is the same."""

    @classmethod
    def of(cls, policy: Policy, n_layers: int) -> Self:
        """The setting of a policy for a model of `n_layers`."""
        match policy:
            case Autoregressive():
                return cls(Mode.autoregressive.value, n_layers)
            case EarlyExit(exit_layer):
                return cls(Mode.early_exit.value, exit_layer)
            case SelfSpeculative(exit_layer, d, reuse):
                kind = ExitStates.reuse if reuse else ExitStates.recompute
                return cls(Mode.self_speculative.value, exit_layer, d, kind.value)
            case PromptLookup(d):
                return cls(Mode.prompt_lookup.value, n_layers, d)
            case DraftModel(exit_layer, d):
                return cls(Mode.draft_model.value, exit_layer, d)
            case ConfidenceStop(exit_layer, d):
                name = DraftPolicy.confidence.value
                return cls(Mode.self_speculative.value, exit_layer, d, ExitStates.reuse.value, name)
            case DynamicExit():
                return cls(Mode.self_speculative.value, 0, 0, ExitStates.reuse.value, DraftPolicy.dynamic.value)

    @property
    def numbers(self) -> str:
        """Tells settings of one mode apart: `E=4 d=6`, `E=4 d=6 confidence`, `dynamic`, `E=4`; else empty."""
        if self.mode == Mode.prompt_lookup:
            return f"d={self.num_speculations}"
        if self.mode not in (Mode.early_exit, Mode.self_speculative, Mode.draft_model):
            return ""
        drafts = [f"d={self.num_speculations}"] if self.num_speculations else []
        kind = [self.exit_states] if self.exit_states == ExitStates.recompute else []
        exit_layer = [f"E={self.exit_layer}"] if self.exit_layer else []
        return " ".join([*exit_layer, *drafts, *kind, *([self.policy] if self.policy else [])])

    @property
    def label(self) -> str:
        """The setting in a heading, a line or a figure: `self-speculative E=4 d=6`, `autoregressive`."""
        return f"{self.mode.replace('_', '-')} {self.numbers}".rstrip()

    @property
    def keys(self) -> str:
        """The keys of eval.generate that decode with it: `exit_layer=4 num_speculations=6`, `policy=dynamic`."""
        policy = [f"policy={self.policy}"] if self.policy else []
        drafts = [f"exit_layer={self.exit_layer}", f"num_speculations={self.num_speculations}"]
        return " ".join([*policy, *(drafts if self.exit_layer else [])])
