"""The cache of a decoder that drafts with its first layers: keys, values and exit states ("KVQ").

Allocated once and written in place. To roll back is to set the length: what lies beyond is not read, and overwritten.
"""

import torch

from models.config import ModelConfig


class KVQCache:
    """Keys and values of every layer and the residual stream at the exit, by position.

    kv: [L, B, 2K, S, head_dim] for B sequences, K key heads followed by K value heads, and S positions;
    exit_states: [B, S, D].
    `length` is the number of positions, from 0, that all layers have seen.
    """

    def __init__(
        self, size: ModelConfig, max_len: int, batch_size: int = 1, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Room for `max_len` positions."""
        shape = (size.n_layers, batch_size, 2 * size.kv_heads, max_len, size.head_dim)
        self.kv = torch.zeros(shape, dtype=dtype, device=device)
        self.exit_states = torch.zeros(batch_size, max_len, size.dim, dtype=dtype, device=device)
        self.max_len = max_len
        self.length = 0
