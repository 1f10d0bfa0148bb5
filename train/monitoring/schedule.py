"""What the schedules ask of a step, as metrics: p(l, t) of each layer and e~(t, l) of each exit."""

from models.exits import exit_name, layer_name
from train.config import PretrainConfig
from train.recipe.dropout_schedule import dropout_probability
from train.recipe.exit_weights import exit_weights

MOST = 1000
"""Steps over which weights are averaged at most."""


def schedule_metrics(config: PretrainConfig, step: int) -> dict[str, float]:
    """train/dropout/layer_03 and train/exit_weight/exit_03, with six digits.

    Under a rotation an exit has a weight in some steps only, so its weight is the mean over the steps since the last
    validation, or over the last MOST. Both are functions of the configuration and the step alone: the same after a
    restart, and to be had for any other step without a log.

    Args:
        config: of the run.
        step: the one that has just been done, from 1.
    """
    n_layers, total = config.model.n_layers, config.train.steps
    since = (step - 1) // config.validation.every * config.validation.every
    steps = range(max(since, step - MOST), step)  # t of equations 4 and 6, the number of steps completed before
    sums = dict.fromkeys(range(n_layers), 0.0)
    for t in steps:
        for layer, weight in exit_weights(config.early_exit, t, n_layers, total).items():
            sums[layer] += weight
    metrics = {
        f"train/dropout/{layer_name(layer + 1)}": dropout_probability(
            config.layer_dropout, layer, step - 1, n_layers, total
        )
        for layer in range(n_layers)
    }
    metrics |= {f"train/exit_weight/{exit_name(layer + 1)}": total / len(steps) for layer, total in sums.items()}
    return {name: float(f"{value:.6g}") for name, value in metrics.items()}
