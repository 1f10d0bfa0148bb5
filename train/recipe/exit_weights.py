"""e~(t, l): how much each exit weighs in the loss of step t. Paper, equations 5 and 6."""

from conf.plugins import is_plugin
from train.recipe.curriculum import Curriculum, EarlyExitConfig, active_layers, rotation


def layer_weight(layer: int, n_layers: int, e_scale: float) -> float:
    """e(l), before normalisation: quadratic in depth, and the last layer counts on its own.

    e(l) = e_scale * l(l+1)/2 below the last layer; e(L-1) = (L-1) + e_scale * (L-2)(L-1)/2. So e(0) = 0: the exit of
    the first layer is never trained.
    """
    if layer < n_layers - 1:
        return e_scale * layer * (layer + 1) / 2
    return (n_layers - 1) + e_scale * (n_layers - 2) * (n_layers - 1) / 2


def exit_weights(config: EarlyExitConfig, step: int, n_layers: int, total_steps: int) -> dict[int, float]:
    """e~(t, l) for the layers, ascending, whose weight is not zero; they sum to 1. Other exits need not be computed.

    Empty for a step without any weight, which `first_step_without_weight` finds beforehand.
    """
    weights = {
        layer: layer_weight(layer, n_layers, config.e_scale)
        for layer in active_layers(config, step, n_layers, total_steps)
    }
    total = sum(weights.values())
    return {layer: weight / total for layer, weight in weights.items() if weight > 0}


def first_step_without_weight(config: EarlyExitConfig, n_layers: int, total_steps: int) -> int | None:
    """The first step t that would train nothing, or None. Possible only without the last layer."""
    # One rotation shows every step of a rotation; our other curricula only ever add exits.
    if is_plugin(config.curriculum):
        period = total_steps
    else:
        period = rotation(config, n_layers) if config.curriculum == Curriculum.rotational else 1
    steps = range(min(period, total_steps))
    return next((t for t in steps if not exit_weights(config, t, n_layers, total_steps)), None)
