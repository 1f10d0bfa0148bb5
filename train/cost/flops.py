"""What a training step costs per token: models/flops.py at the rows kept and the exits active in that step."""

from collections.abc import Iterable

from models.flops import flops_per_token
from train.config import PretrainConfig
from train.recipe.dropout_schedule import dropout_probabilities
from train.recipe.exit_weights import exit_weights


def step_flops(config: PretrainConfig, step: int, recompute: bool = False) -> float:
    """FLOPs of step t of a run, per token, in expectation over the dropped rows."""
    n_layers, total = config.model.n_layers, config.train.steps
    kept = [1.0 - p for p in dropout_probabilities(config.layer_dropout, step, n_layers, total)]
    exits = tuple(exit_weights(config.early_exit, step, n_layers, total))
    return flops_per_token(config.model, config.train.seq_len, kept, exits, recompute)


def mean_flops(config: PretrainConfig, steps: Iterable[int], recompute: bool = False) -> float:
    """Mean over steps, per token."""
    costs = [step_flops(config, step, recompute) for step in steps]
    return sum(costs) / len(costs)
