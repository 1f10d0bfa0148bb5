"""p(l, t): with what probability a row skips layer l at step t. Paper, equations 2 to 4: p = p_max * D(l) * S(t)."""

from dataclasses import dataclass
from enum import StrEnum

from conf.plugins import check_choice, is_plugin, load_function
from models.row_sampling import Sampling

DEPTH = ("layer_dropout.depth_schedule", ("layer", "n_layers"))
TIME = ("layer_dropout.time_schedule", ("step", "total_steps"))


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
    depth_schedule: str = DepthSchedule.exponential.value
    """D(l): exponential, linear, constant, or my_package.mine:name, a function (layer, n_layers) that gives 0 to 1."""
    time_schedule: str = TimeSchedule.constant.value
    """S(t): constant, exponential, decreasing, or my_package.mine:name, a function (step, total_steps), likewise."""
    rescale: Rescale = Rescale.none
    """Scale of kept branches."""
    sampling: Sampling = Sampling.auto
    """How the rows are drawn."""

    def __post_init__(self) -> None:
        check_choice(self.depth_schedule, DepthSchedule, *DEPTH)
        check_choice(self.time_schedule, TimeSchedule, *TIME)
        if not 0.0 <= self.p_max < 1.0:
            raise ValueError(f"layer_dropout.p_max={self.p_max}: must be at least 0 and below 1")


def depth_scale(schedule: str, layer: int, n_layers: int) -> float:
    """D(l) for layer l of 0..L-1. Raises ValueError for a function of the user's own that leaves 0..1."""
    if is_plugin(schedule):
        return _of_plugin(schedule, *DEPTH, layer=layer, n_layers=n_layers)
    if schedule == DepthSchedule.constant:
        return 1.0
    depth = layer / (n_layers - 1)
    return depth if schedule == DepthSchedule.linear else 2.0**depth - 1.0


def time_scale(schedule: str, step: int, total_steps: int) -> float:
    """S(t) for step t of 0..T-1. A run of one step is at its beginning. Raises ValueError like `depth_scale`."""
    if is_plugin(schedule):
        return _of_plugin(schedule, *TIME, step=step, total_steps=total_steps)
    if schedule == TimeSchedule.constant:
        return 1.0
    progress = step / (total_steps - 1) if total_steps > 1 else 0.0
    return 1.0 - progress if schedule == TimeSchedule.decreasing else 2.0**progress - 1.0


def _of_plugin(path: str, key: str, parameters: tuple[str, ...], **values: int) -> float:
    found = load_function(path, key, parameters)(**values)
    if not isinstance(found, int | float) or not 0.0 <= found <= 1.0:
        at = ", ".join(f"{name}={value}" for name, value in values.items())
        raise ValueError(f"{key}={path}: gave {found!r} at {at}; must be a number in 0..1")
    return float(found)


def check_schedules(config: LayerDropoutConfig, n_layers: int, total_steps: int) -> None:
    """Raise ValueError where a schedule of the user's own leaves 0..1 at any layer or step of the run."""
    if is_plugin(config.depth_schedule):
        for layer in range(n_layers):
            depth_scale(config.depth_schedule, layer, n_layers)
    if is_plugin(config.time_schedule):
        for step in range(total_steps):
            time_scale(config.time_schedule, step, total_steps)


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


def dropout_probabilities(config: LayerDropoutConfig, step: int, n_layers: int, total_steps: int) -> list[float]:
    """p(l, t) of every layer at step t."""
    return [dropout_probability(config, layer, step, n_layers, total_steps) for layer in range(n_layers)]


def branch_scale(config: LayerDropoutConfig, p: float) -> float:
    """What the branch of a kept row is multiplied with, for a layer dropped with probability p."""
    return 1.0 / (1.0 - p) if config.rescale is Rescale.inverse_keep else 1.0
