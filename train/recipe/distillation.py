"""Self-distillation: exits that learn from the last layer's distribution beside the labels, or instead of them.

    J(t) = CE_L + lambda(t) * sum_x w_x [(1 - b) CE_x + b tau^2 KL(p_L^tau || q_x^tau)]

p_L and q_x are the distributions over the vocabulary of the last layer and of exit x in the same step, p^tau is
softmax(logits / tau), and p_L is a constant for the gradient. The sum is over the active exits below the last layer,
and the w_x sum to 1. Sources: relaxed recursive transformers, MTP-D (arXiv 2603.23911), Balcony (EMNLP 2025).
"""

from dataclasses import dataclass
from enum import StrEnum

from conf.checks import at_least, at_most

SECTION = "early_exit.distillation."


class DistillationWeights(StrEnum):
    """w_x, how the active exits below the last layer share lambda."""

    paper = "paper"
    """In proportion to the paper's e(l), so l(l+1)/2: layer 0 is not trained, and e_scale cancels."""
    uniform = "uniform"
    """All alike."""


class Otherwise(StrEnum):
    """What is trained in steps in which lambda(t) = 0."""

    last_layer = "last_layer"
    """J = CE_L: the last layer alone."""
    paper = "paper"
    """The paper's weighted sum over the curriculum's exits (e_scale, include_last_layer)."""


@dataclass(kw_only=True)
class DistillationConfig:
    """The loss with the last layer as a teacher; strength = 0 switches it off and leaves the paper's loss."""

    strength: float = 0.0
    """lambda: what all exits below the last layer weigh together, beside the last layer's 1."""
    kl_share: float = 1.0
    """b: share of the divergence from the last layer in an exit's loss, 0 to 1; the rest is its cross entropy."""
    temperature: float = 1.0
    """tau: both distributions are softmax(logits / tau) in the divergence; above 0."""
    weights: DistillationWeights = DistillationWeights.paper
    """w_x: how the active exits below the last layer share lambda."""
    begin: float = 0.0
    """lambda(t) = lambda from this share of the run's steps on, and 0 before."""
    end: float = 1.0
    """lambda(t) = 0 again from this share of the run's steps on."""
    otherwise: Otherwise = Otherwise.last_layer
    """What steps train in which lambda(t) = 0."""
    teach_dropped_rows: bool = True
    """Whether rows that skip the last layer in a step (layer dropout) teach their exits all the same. If not, their
    exits learn from the labels alone in that step (b = 0)."""

    def __post_init__(self) -> None:
        at_least(0.0, self, "strength", "kl_share", section=SECTION)
        at_most(1.0, self, "kl_share", section=SECTION)
        if self.temperature <= 0.0:
            raise ValueError(f"{SECTION}temperature={self.temperature}: must be above 0")
        if not 0.0 <= self.begin < self.end <= 1.0:
            raise ValueError(f"{SECTION}begin={self.begin}: must be at least 0 and below end={self.end}, at most 1")

    @property
    def always(self) -> bool:
        """Whether lambda(t) > 0 in every step."""
        return self.strength > 0 and self.begin == 0.0 and self.end == 1.0


def strength_at(config: DistillationConfig, step: int, total_steps: int) -> float:
    """lambda(t) at step t of 0..T-1."""
    return config.strength if config.begin * total_steps <= step < config.end * total_steps else 0.0


def shares(weights: DistillationWeights, layers: tuple[int, ...]) -> dict[int, float]:
    """w_x of the active layers below the last, those of weight zero left out; they sum to 1, or there are none."""
    uniform = weights is DistillationWeights.uniform
    raw = {layer: 1.0 if uniform else layer * (layer + 1) / 2 for layer in layers}
    total = sum(raw.values())
    return {layer: weight / total for layer, weight in raw.items() if weight > 0}
