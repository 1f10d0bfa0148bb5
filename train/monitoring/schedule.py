"""What the schedules ask of a step, as metrics: p(l, t) of each layer and e~(t, l) of each exit."""

from models.exits import exit_name, layer_name
from train.config import PretrainConfig
from train.recipe.dropout_schedule import dropout_probabilities
from train.recipe.exit_weights import mean_weights_of

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
    dropout = dropout_probabilities(config.layer_dropout, step - 1, n_layers, total)
    weights = mean_weights_of(config.early_exit, steps, n_layers, total)
    metrics = {f"train/dropout/{layer_name(i)}": p for i, p in enumerate(dropout, 1)}
    metrics |= {f"train/exit_weight/{exit_name(i)}": weight for i, weight in enumerate(weights, 1)}
    return {name: float(f"{value:.6g}") for name, value in metrics.items()}
