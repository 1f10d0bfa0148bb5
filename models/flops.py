"""What a token costs: floating-point operations of the matrix products in a model's forward and backward pass.

A product of [m, k] with [k, n] counts 2mkn. A backward costs twice its forward, full activation checkpointing a second
forward of every block. Rows that skip a block cost nothing there (paper, section 4.1); each active exit costs one pass
through the head; blocks above the highest active exit are not run.
"""

from collections.abc import Sequence

from models.config import ModelConfig

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


def plain_flops(model: ModelConfig, seq_len: int, recompute: bool = False) -> float:
    """FLOPs per token of the model without layer dropout and early exits."""
    return flops_per_token(model, seq_len, [1.0] * model.n_layers, (model.n_layers - 1,), recompute)
