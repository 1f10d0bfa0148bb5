"""What decoding keeps in memory, beside what speculation with a second model would: computed from sizes alone."""

from typing import NamedTuple

import torch

from models.config import ModelConfig
from models.kv_cache import row_bytes


class DecodingMemory(NamedTuple):
    """Bytes of what decoding keeps besides the model's weights."""

    keys_and_values: int
    """Of all layers."""
    exit_states: int
    """Of the tokens of a round: the last one emitted and the drafted ones."""
    draft_keys_and_values: int
    """Of a draft model, which self-speculation does not have: its first layers' are the model's."""
    draft_weights: int
    """Of a draft model."""
    draft_layers: int
    """Its layers, as many as the exit has."""

    @property
    def one_model(self) -> int:
        """With self-speculation."""
        return self.keys_and_values + self.exit_states

    @property
    def two_models(self) -> int:
        """With a draft model of as many layers as the exit has, its weights included."""
        return self.keys_and_values + self.draft_keys_and_values + self.draft_weights

    def __str__(self) -> str:
        line = f"memory: {_mb(self.keys_and_values)} of keys and values"
        if not self.draft_weights:
            return line
        return (
            f"{line}, {_mb(self.exit_states)} of exit states; with a draft model of {self.draft_layers}"
            f" layers {_mb(self.two_models)}, {_mb(self.draft_weights)} of them its weights"
        )


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"


def weight_bytes(size: ModelConfig, n_layers: int, dtype: torch.dtype) -> int:
    """The weights of the first layers, the embedding and the head, as models/inference.py holds them."""
    kv_dim = size.kv_heads * size.head_dim
    block = size.dim * (2 * size.dim + 2 * kv_dim + 3 * size.ffn_dim)
    matrices = 1 if size.tie_embeddings else 2
    final_norm = size.dim if size.tie_embeddings else 0
    return (n_layers * block + matrices * size.vocab_size * size.dim + final_norm) * dtype.itemsize


def decoding_memory(
    size: ModelConfig,
    max_len: int,
    dtype: torch.dtype,
    *,
    batch_size: int = 1,
    exit_layer: int | None = None,
    num_speculations: int = 0,
) -> DecodingMemory:
    """What decoding keeps.

    Args:
        size: of the model.
        max_len: positions of each row.
        dtype: of the cache, and of a draft model's weights.
        batch_size: rows.
        exit_layer: E of self-speculation; None: nothing is drafted.
        num_speculations: d.
    """
    keys_and_values = batch_size * row_bytes(size, max_len, dtype)
    if exit_layer is None:
        return DecodingMemory(keys_and_values, 0, 0, 0, 0)
    return DecodingMemory(
        keys_and_values,
        batch_size * (num_speculations + 1) * size.dim * dtype.itemsize,
        keys_and_values * exit_layer // size.n_layers,
        weight_bytes(size, exit_layer, dtype),
        exit_layer,
    )
