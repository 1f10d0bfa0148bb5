"""Batches for one data-parallel rank, in an order that is a pure function of (seed, position).

The position is the number of rows that all ranks together have taken. It is the loader's whole state: the same number
on every rank, so a checkpoint continues exactly, with any number of reading processes.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torchdata.stateful_dataloader import StatefulDataLoader

from data.packing import PackedRows


def _epoch_order(n_rows: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(n_rows)


class _RankRows(torch.utils.data.Sampler[list[int]]):
    """Endless batches of rows for one rank: of every world_size * batch_size rows, the rank-th batch_size."""

    def __init__(self, n_rows: int, seed: int, batch_size: int, rank: int, world_size: int) -> None:
        self.n_rows, self.seed, self.batch_size, self.rank, self.world_size = n_rows, seed, batch_size, rank, world_size
        self.position = 0

    def __iter__(self) -> Iterator[list[int]]:
        position, epoch, order = self.position, -1, np.empty(0, np.int64)
        while True:
            rows = []
            start = position + self.rank * self.batch_size
            for i in range(start, start + self.batch_size):
                if i // self.n_rows != epoch:
                    epoch = i // self.n_rows
                    order = _epoch_order(self.n_rows, self.seed, epoch)
                rows.append(int(order[i % self.n_rows]))
            yield rows
            position += self.batch_size * self.world_size


class PackedLoader(StatefulDataLoader):
    """Endless batches ({"input": [B, T]}, labels [B, T]), int64 on the CPU; its state is one position.

    torchdata's own state is kept per rank and per worker; ours replaces it, because one global position says the same
    and does not depend on how many ranks or workers there are.
    """

    def __init__(
        self, rows: PackedRows, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1, num_workers: int = 0
    ) -> None:
        """Batches of `batch_size` rows for `rank` of `world_size` data-parallel ranks."""
        self._order = _RankRows(len(rows), seed, batch_size, rank, world_size)
        self._rows_per_batch = batch_size * world_size
        super().__init__(
            rows, batch_sampler=self._order, num_workers=num_workers, persistent_workers=False, collate_fn=_collate
        )

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        for batch in super().__iter__():
            # Counted when a batch is handed out, not when a worker reads it ahead.
            self._order.position += self._rows_per_batch
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """The rows taken so far, by all ranks together."""
        return {"position": self._order.position}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the row after those taken; takes effect at the next `iter()`."""
        self._order.position = int(state_dict["position"])


def _collate(samples: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    inputs, labels = zip(*samples, strict=True)
    return {"input": torch.stack(inputs)}, torch.stack(labels)


def validation_batches(
    rows: PackedRows, *, max_rows: int | None, batch_size: int, rank: int = 0, world_size: int = 1
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(inputs [B, T], labels [B, T]) over rows spread evenly over the text, each row on one rank.

    All ranks get the same number of batches; what is missing at the end is filled with rows without labels.
    """
    n_rows = len(rows) if max_rows is None else min(max_rows, len(rows))
    chosen = [i * len(rows) // n_rows for i in range(n_rows)]
    n_batches = -(-n_rows // (batch_size * world_size))
    chosen += [len(rows)] * (n_batches * batch_size * world_size - n_rows)
    for start in range(rank * batch_size, len(chosen), batch_size * world_size):
        inputs, labels = _collate([rows[i] for i in chosen[start : start + batch_size]])
        yield inputs["input"], labels
