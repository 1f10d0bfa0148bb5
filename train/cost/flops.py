"""What a training step costs: floating-point operations of its matrix products, per token of the batch.

A product of [m, k] with [k, n] counts 2mkn. A backward costs twice its forward, full activation checkpointing a second
forward of every block. Rows that skip a block cost nothing there (paper, section 4.1); each active exit costs one pass
through the head; blocks above the highest active exit are not run.
"""

from collections.abc import Iterable, Sequence

from models.config import ModelConfig
from train.config import PretrainConfig
from train.recipe.dropout_schedule import dropout_probability
from train.recipe.exit_weights import exit_weights

BACKWARD = 2  # in forwards


def block_flops(model: ModelConfig, seq_len: int) -> float:
    """FLOPs of a block's forward pass: projections, feed-forward, and attention over seq_len / 2 tokens on average."""
    kv_dim = model.kv_heads * model.head_dim
    weights = model.dim * (2 * model.dim + 2 * kv_dim) + 3 * model.dim * model.ffn_dim
    scores_and_values = 2 * model.dim * seq_len / 2
    return 2 * (weights + scores_and_values)


def head_flops(model: ModelConfig) -> float:
    """FLOPs of one forward pass through the LM head."""
    return 2 * model.dim * model.vocab_size


def flops_per_token(
    model: ModelConfig, seq_len: int, kept: Sequence[float], exits: Sequence[int], recompute: bool = False
) -> float:
    """FLOPs of forward and backward, per token.

    Args:
        model: sizes.
        seq_len: T.
        kept: for each layer, the share of rows that pass through it.
        exits: active layers l, ascending.
        recompute: whether blocks are recomputed in the backward (full activation checkpointing).
    """
    blocks = sum(kept[: exits[-1] + 1]) * block_flops(model, seq_len)
    heads = len(exits) * head_flops(model)
    return (1 + BACKWARD + recompute) * blocks + (1 + BACKWARD) * heads


def step_flops(config: PretrainConfig, step: int, recompute: bool = False) -> float:
    """FLOPs of step t of a run, per token, in expectation over the dropped rows."""
    n_layers, total = config.model.n_layers, config.train.steps
    kept = [1.0 - dropout_probability(config.layer_dropout, i, step, n_layers, total) for i in range(n_layers)]
    exits = tuple(exit_weights(config.early_exit, step, n_layers, total))
    return flops_per_token(config.model, config.train.seq_len, kept, exits, recompute)


def plain_flops(model: ModelConfig, seq_len: int, recompute: bool = False) -> float:
    """FLOPs per token of the model without layer dropout and early exits."""
    return flops_per_token(model, seq_len, [1.0] * model.n_layers, (model.n_layers - 1,), recompute)


def mean_flops(config: PretrainConfig, steps: Iterable[int], recompute: bool = False) -> float:
    """Mean over steps, per token."""
    costs = [step_flops(config, step, recompute) for step in steps]
    return sum(costs) / len(costs)
