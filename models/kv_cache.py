"""The cache of a decoder: keys and values.

Allocated once and written in place. To roll back is to set a length: what lies beyond is not read, and overwritten.
"""

import copy
from collections.abc import Iterator

import torch

from models.config import ModelConfig


def row_bytes(size: ModelConfig, max_len: int, dtype: torch.dtype) -> int:
    """Memory of a row of a cache with room for `max_len` positions, which has one more (see `KVCache`)."""
    return 2 * size.n_layers * size.kv_heads * size.head_dim * (max_len + 1) * dtype.itemsize


Views = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Of a layer: [B, 2K, S, head_dim] to write, or of S the positions begin .. end-1 alone; and its keys and values,
[B, K, end, head_dim] each, to read."""


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

    def views(self, layers: range, batch: int, end: int, begin: int | None = None) -> Iterator[Views]:
        """The views of some layers for the first rows; `begin`: what is written is what stands from there to `end`."""
        kv = self.kv[layers.start : layers.stop, :batch]
        n_keys = kv.shape[2] // 2
        read = kv.narrow(3, 0, end)
        written = kv if begin is None else kv.narrow(3, begin, end - begin)
        # unbind makes the views of all layers in one call.
        keys, values = read.narrow(2, 0, n_keys), read.narrow(2, n_keys, n_keys)
        return zip(written.unbind(), keys.unbind(), values.unbind(), strict=True)

    def row(self, number: int) -> "KVCache":
        """One row as a cache that shares the memory; its length is not shared."""
        one = copy.copy(self)
        one.kv, one.lengths = self.kv[:, number : number + 1], self.lengths[number : number + 1]
        return one

    def move(self, source: int, target: int) -> None:
        """Let a row take another's place."""
        length = self.lengths[target] = self.lengths[source]
        self.kv[:, target, :, :length] = self.kv[:, source, :, :length]


class LayeredKVCache(KVCache):
    """The same with a tensor for each layer, which compilers write in place; of one for all they would make copies."""

    def __init__(
        self, size: ModelConfig, max_len: int, batch_size: int = 1, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Room for `max_len` positions of each row."""
        shape = (batch_size, 2 * size.kv_heads, max_len + 1, size.head_dim)
        self.layers = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(size.n_layers)]
        self.max_len = max_len
        self.lengths = [0] * batch_size

    def views(self, layers: range, batch: int, end: int, begin: int | None = None) -> Iterator[Views]:
        """As of a `KVCache`."""
        for layer in self.layers[layers.start : layers.stop]:
            kv = layer if batch == len(layer) else layer[:batch]
            n_keys = kv.shape[1] // 2
            yield kv if begin is None else kv[:, :, begin:end], kv[:, :n_keys, :end], kv[:, n_keys:, :end]

    def row(self, number: int) -> "LayeredKVCache":
        """One row as a cache that shares the memory; its length is not shared."""
        one = copy.copy(self)
        one.layers = [layer[number : number + 1] for layer in self.layers]
        one.lengths = self.lengths[number : number + 1]
        return one

    def move(self, source: int, target: int) -> None:
        """Let a row take another's place."""
        length = self.lengths[target] = self.lengths[source]
        for layer in self.layers:
            layer[target, :, :length] = layer[source, :, :length]
