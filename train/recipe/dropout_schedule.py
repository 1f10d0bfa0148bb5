"""p(l, t): with what probability a row skips layer l at step t. Paper, equations 2 to 4: p = p_max * D(l) * S(t)."""

from dataclasses import dataclass
from enum import StrEnum

from models.row_sampling import Sampling


class DepthSchedule(StrEnum):
    """D(l), from 0 in the first layer to 1 in the last."""

    exponential = "exponential"
    """2^(l/(L-1)) - 1: equation 3."""
    linear = "linear"
    """l/(L-1)."""
    constant = "constant"
    """1 in every layer."""


class TimeSchedule(StrEnum):
    """S(t)."""

    constant = "constant"
    """1: the paper's for continual pretraining and finetuning."""
    exponential = "exponential"
    """2^(t/(T-1)) - 1: equation 4, the paper's for pretraining from scratch."""
    decreasing = "decreasing"
    """1 - t/(T-1): from the follow-up arXiv 2609.05275, which found it better than the other two."""


class Rescale(StrEnum):
    """What the branch of a kept row is multiplied with in training."""

    none = "none"
    """1: the paper."""
    inverse_keep = "inverse_keep"
    """1/(1-p): from the follow-up."""


@dataclass(kw_only=True)
class LayerDropoutConfig:
    """Layer dropout; p_max = 0 switches it off."""

    p_max: float = 0.0
    """Largest probability, that of the last layer; 0 <= p_max < 1."""
    depth_schedule: DepthSchedule = DepthSchedule.exponential
    """D(l)."""
    time_schedule: TimeSchedule = TimeSchedule.constant
    """S(t)."""
    rescale: Rescale = Rescale.none
    """Scale of kept branches."""
    sampling: Sampling = Sampling.bernoulli
    """How the rows are drawn."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.p_max < 1.0:
            raise ValueError(f"layer_dropout.p_max={self.p_max}: must be at least 0 and below 1")


def depth_scale(schedule: DepthSchedule, layer: int, n_layers: int) -> float:
    """D(l) for layer l of 0..L-1."""
    if schedule is DepthSchedule.constant:
        return 1.0
    depth = layer / (n_layers - 1)
    return depth if schedule is DepthSchedule.linear else 2.0**depth - 1.0


def time_scale(schedule: TimeSchedule, step: int, total_steps: int) -> float:
    """S(t) for step t of 0..T-1. A run of one step is at its beginning."""
    if schedule is TimeSchedule.constant:
        return 1.0
    progress = step / (total_steps - 1) if total_steps > 1 else 0.0
    return 1.0 - progress if schedule is TimeSchedule.decreasing else 2.0**progress - 1.0


def dropout_probability(config: LayerDropoutConfig, layer: int, step: int, n_layers: int, total_steps: int) -> float:
    """p(l, t) = p_max * D(l) * S(t).

    Args:
        config: the schedule.
        layer: l, 0..L-1.
        step: optimizer steps completed, t, 0..T-1.
        n_layers: L.
        total_steps: T.
    """
    return (
        config.p_max
        * depth_scale(config.depth_schedule, layer, n_layers)
        * time_scale(config.time_schedule, step, total_steps)
    )


def branch_scale(config: LayerDropoutConfig, p: float) -> float:
    """What the branch of a kept row is multiplied with, for a layer dropped with probability p."""
    return 1.0 / (1.0 - p) if config.rescale is Rescale.inverse_keep else 1.0
