"""The cache of a decoder that drafts with its first layers: keys, values and exit states ("KVQ").

Allocated once and written in place. To roll back is to set a length: what lies beyond is not read, and overwritten.
"""

import copy

import torch

from models.config import ModelConfig


class KVQCache:
    """Keys and values of every layer and the residual stream at the exit, by row (sequence) and position.

    kv: [L, B, 2K, S, head_dim] for B rows, K key heads followed by K value heads, and S positions;
    exit_states: [B, S, D].
    `lengths` are the numbers of positions, from 0, that all layers have seen, one for each row.

    A cache of several rows has one position more than `max_len`. Rows that are shorter than others draft as many tokens
    as they do; what a row drafts beyond its room is written there and read by nothing that counts.
    """

    def __init__(
        self, size: ModelConfig, max_len: int, batch_size: int = 1, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Room for `max_len` positions of each row."""
        n_positions = max_len if batch_size == 1 else max_len + 1
        shape = (size.n_layers, batch_size, 2 * size.kv_heads, n_positions, size.head_dim)
        self.kv = torch.zeros(shape, dtype=dtype, device=device)
        self.exit_states = torch.zeros(batch_size, n_positions, size.dim, dtype=dtype, device=device)
        self.max_len, self.batch_size = max_len, batch_size
        self.lengths = [0] * batch_size

    def row(self, number: int) -> "KVQCache":
        """One row as a cache that shares the memory; its length is not shared."""
        one = copy.copy(self)
        one.kv, one.exit_states = self.kv[:, number : number + 1], self.exit_states[number : number + 1]
        one.batch_size, one.lengths = 1, self.lengths[number : number + 1]
        return one

    def move(self, source: int, target: int) -> None:
        """Let a row take another's place. Exit states are needed within a round alone, and stay."""
        length = self.lengths[target] = self.lengths[source]
        self.kv[:, target, :, :length] = self.kv[:, source, :, :length]
