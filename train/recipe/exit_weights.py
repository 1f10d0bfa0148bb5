"""How much each exit weighs in the loss of step t: e~(t, l) of the paper's equations 5 and 6, or under distillation."""

from collections.abc import Sequence

from conf.plugins import is_plugin
from train.recipe.curriculum import Curriculum, EarlyExitConfig, active_layers, rotation
from train.recipe.distillation import Otherwise, shares, strength_at


def layer_weight(layer: int, n_layers: int, e_scale: float) -> float:
    """e(l), before normalisation: quadratic in depth, and the last layer counts on its own.

    e(l) = e_scale * l(l+1)/2 below the last layer; e(L-1) = (L-1) + e_scale * (L-2)(L-1)/2. So e(0) = 0: the exit of
    the first layer is never trained.
    """
    if layer < n_layers - 1:
        return e_scale * layer * (layer + 1) / 2
    return (n_layers - 1) + e_scale * (n_layers - 2) * (n_layers - 1) / 2


def exit_weights(config: EarlyExitConfig, step: int, n_layers: int, total_steps: int) -> dict[int, float]:
    """The weights of the layers, ascending, whose weight is not zero. Other exits need not be computed.

    The paper's e~(t, l), which sum to 1; in steps of distillation 1 for the last layer and lambda(t) w_x for those
    below, of which there may be none. Empty for a step without any weight, which `first_step_without_weight` finds
    beforehand.
    """
    distillation, last = config.distillation, n_layers - 1
    if strength := strength_at(distillation, step, total_steps):
        below = tuple(layer for layer in active_layers(config, step, n_layers, total_steps) if layer < last)
        return {x: strength * w for x, w in shares(distillation.weights, below).items()} | {last: 1.0}
    if distillation.strength and distillation.otherwise is Otherwise.last_layer:
        return {last: 1.0}
    return paper_weights(config, step, n_layers, total_steps)


def mean_weights_of(config: EarlyExitConfig, steps: Sequence[int], n_layers: int, total_steps: int) -> list[float]:
    """The mean weight of every layer over some steps; 0 in those in which its exit is not trained."""
    weights = [exit_weights(config, step, n_layers, total_steps) for step in steps]
    return [sum(of_step.get(layer, 0.0) for of_step in weights) / len(steps) for layer in range(n_layers)]


def paper_weights(config: EarlyExitConfig, step: int, n_layers: int, total_steps: int) -> dict[int, float]:
    """e~(t, l) for the layers, ascending, whose weight is not zero; they sum to 1, or there are none."""
    weights = {
        layer: layer_weight(layer, n_layers, config.e_scale)
        for layer in active_layers(config, step, n_layers, total_steps)
    }
    total = sum(weights.values())
    return {layer: weight / total for layer, weight in weights.items() if weight > 0}


def first_step_without_weight(config: EarlyExitConfig, n_layers: int, total_steps: int) -> int | None:
    """The first step t that would train nothing, or None. Possible only without the last layer."""
    if config.distillation.strength and config.distillation.otherwise is Otherwise.last_layer:
        return None
    # One rotation shows every step of a rotation; our other curricula only ever add exits.
    if is_plugin(config.curriculum):
        period = total_steps
    else:
        period = rotation(config, n_layers) if config.curriculum == Curriculum.rotational else 1
    steps = range(min(period, total_steps))
    return next((t for t in steps if not paper_weights(config, t, n_layers, total_steps)), None)
