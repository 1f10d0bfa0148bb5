"""The cache of a decoder: keys and values.

Allocated once and written in place. To roll back is to set a length: what lies beyond is not read, and overwritten.
"""

import copy

import torch

from models.config import ModelConfig


def row_bytes(size: ModelConfig, max_len: int, dtype: torch.dtype) -> int:
    """Memory of a row of a cache with room for `max_len` positions, which has one more (see `KVCache`)."""
    return 2 * size.n_layers * size.kv_heads * size.head_dim * (max_len + 1) * dtype.itemsize


class KVCache:
    """Keys and values of every layer, by row (sequence) and position.

    kv: [L, B, 2K, S, head_dim] for B rows, K key heads followed by K value heads, and S positions.
    `lengths` are the numbers of positions, from 0, that all layers have seen, one for each row.

    There is one position more than `max_len`. All rows of a batch draft equally many tokens; what a row drafts beyond
    its room is written there, and read by nothing that counts.
    """

    def __init__(
        self, size: ModelConfig, max_len: int, batch_size: int = 1, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Room for `max_len` positions of each row."""
        shape = (size.n_layers, batch_size, 2 * size.kv_heads, max_len + 1, size.head_dim)
        self.kv = torch.zeros(shape, dtype=dtype, device=device)
        self.max_len = max_len
        self.lengths = [0] * batch_size

    def row(self, number: int) -> "KVCache":
        """One row as a cache that shares the memory; its length is not shared."""
        one = copy.copy(self)
        one.kv, one.lengths = self.kv[:, number : number + 1], self.lengths[number : number + 1]
        return one

    def move(self, source: int, target: int) -> None:
        """Let a row take another's place."""
        length = self.lengths[target] = self.lengths[source]
        self.kv[:, target, :, :length] = self.kv[:, source, :, :length]
