"""Batches for one data-parallel rank, in an order that is a pure function of (seed, number of the row).

Rows are numbered 0, 1, 2, ... over all ranks; rank r takes every world_size-th of them, from the r-th on. The position
is the number of rows that all ranks together have taken; with prepared tokens it is the loader's whole state, the same
on every rank. Streams are dealt into lanes, row g from lane g mod n_lanes; each lane's place is in the state as well,
saved by the ranks that read it. So a checkpoint continues exactly with any number of ranks and reading processes.
"""

import atexit
import json
import math
import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torchdata.stateful_dataloader import StatefulDataLoader

from data.batches.mixture import Mixture
from data.batches.packing import IGNORE_INDEX, Rows
from data.batches.shuffle import permuted
from data.batches.stream import Lane, Stream
from data.config import DataError

Batch = tuple[dict[str, torch.Tensor], torch.Tensor]


class _Shares(torch.utils.data.IterableDataset):
    """For each batch of a rank, the rows of it that this process reads: row j of the rank is process j mod n's."""

    def __init__(
        self,
        sources: Sequence[Rows | Stream],
        mixture: Mixture,
        *,
        seq_len: int,
        fill_id: int,
        batch_size: int,
        rank: int,
        world_size: int,
        n_lanes: int,
        apart: bool,
    ) -> None:
        self.sources, self.mixture, self.seq_len, self.fill_id = sources, mixture, seq_len, fill_id
        self.apart = apart
        self.batch_size, self.rank, self.world_size, self.n_lanes = batch_size, rank, world_size, n_lanes
        self.position = 0
        self.lanes: dict[int, str] = {}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = torch.utils.data.get_worker_info()
        process, n_processes = (info.id, info.num_workers) if info else (0, 1)
        lanes = {n: _LaneCursor(self, n) for n in range(self.n_lanes)} if self.n_lanes else {}
        first = 0
        while True:
            mine = np.arange(first, first + self.batch_size)
            mine = self.position + self.rank + self.world_size * mine[mine % n_processes == process]
            try:
                yield self._share(mine, lanes)
            except DataError as error:  # the process that trains raises it
                yield {"error": str(error)}
                return
            first += self.batch_size

    def _share(self, numbers: np.ndarray, lanes: dict[int, "_LaneCursor"]) -> dict[str, Any]:
        inputs = np.full((len(numbers), self.seq_len), self.fill_id, np.int64)
        labels = np.full((len(numbers), self.seq_len), IGNORE_INDEX, np.int64)
        positions = np.zeros_like(inputs) if self.apart else None
        chosen, within = self.mixture.locate(numbers)
        for s in np.unique(chosen):
            source, here = self.sources[s], np.flatnonzero(chosen == s)
            if isinstance(source, Stream):
                continue
            epochs, index = np.divmod(within[here], len(source))
            for epoch in np.unique(epochs):
                of_epoch = epochs == epoch
                rows = permuted(index[of_epoch], len(source), (self.mixture.seed, int(s), int(epoch)))
                for i, row in zip(here[of_epoch], rows.tolist(), strict=True):
                    source.fill(row, inputs[i], labels[i], None if positions is None else positions[i])
        states = {}
        for i, number in enumerate(numbers.tolist()) if lanes else ():
            lane = lanes[number % self.n_lanes]
            lane.advance(number, inputs[i], labels[i], None if positions is None else positions[i])
            states[number % self.n_lanes] = lane
        return {
            "rows": [torch.from_numpy(part) for part in (inputs, labels, positions) if part is not None],
            "lanes": {n: lane.state() for n, lane in states.items()},
        }

    def origins(self, numbers: np.ndarray) -> list[dict[str, int]]:
        """Where each of these rows is from, without reading it."""
        found = []
        for number, s, within in zip(
            numbers.tolist(), *(a.tolist() for a in self.mixture.locate(numbers)), strict=True
        ):
            source = self.sources[s]
            if isinstance(source, Stream):
                found.append({"row": number, "source": s, "lane": number % self.n_lanes})
                continue
            epoch, index = divmod(within, len(source))
            index = int(permuted(np.array([index]), len(source), (self.mixture.seed, s, epoch))[0])
            found.append({"row": number, "source": s, "epoch": epoch, "index": index})
        return found


class _LaneCursor:
    """Walks through a lane's rows in order, drawing from the streams of a mixture."""

    def __init__(self, of: _Shares, lane: int) -> None:
        self._of, self._lane = of, lane
        saved = json.loads(of.lanes.get(lane, "null")) or {"next": lane, "streams": {}}
        self._next: int = saved["next"]
        self._states: dict[str, str] = saved["streams"]
        self._streams: dict[int, Lane] = {}

    def advance(
        self, number: int, inputs: np.ndarray, labels: np.ndarray, document_positions: np.ndarray | None
    ) -> None:
        """Write row `number` if it is a stream's; rows before it are drawn and given away: another process has them."""
        for row in range(self._next, number + 1, self._of.n_lanes):
            s = int(self._of.mixture.locate(np.array([row]))[0][0])
            if not isinstance(self._of.sources[s], Stream):
                continue
            if row == number:
                self._stream(s).fill(inputs, labels, document_positions)
            else:
                self._stream(s).fill(np.empty_like(inputs), np.empty_like(labels))
        self._next = max(self._next, number + self._of.n_lanes)

    def _stream(self, s: int) -> Lane:
        if s not in self._streams:
            source, of = self._of.sources[s], self._of
            assert isinstance(source, Stream)
            state = self._states.get(str(s))
            self._streams[s] = Lane(source, self._lane, of.n_lanes, of.seq_len, of.mixture.seed, state)
        return self._streams[s]

    def state(self) -> str:
        """The number of the lane's next row, and each stream's place."""
        self._states |= {str(s): lane.state() for s, lane in self._streams.items()}
        return json.dumps({"next": self._next, "streams": self._states})


def _leave_signals_to_parent(_: int) -> None:
    """Who ends a job signals all of its processes, and the training still needs batches for its last step."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def _kill_readers() -> None:
    """At exit multiprocessing would send SIGTERM to processes that are reading, and wait for them."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would report them as lost
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


class Loader(StatefulDataLoader):
    """Endless batches ({"input": [B, T]}, labels [B, T]), int64 on the CPU; exact over kills, ranks and processes.

    Where documents are kept apart, the dictionary has "document_positions" [B, T] as well: of each token, that in its
    document (data/batches/packing.py).

    torchdata's own state is kept per rank and per worker; ours replaces it: it does not depend on how many there are.
    """

    def __init__(
        self,
        sources: Sequence[Rows | Stream],
        mixture: Mixture,
        *,
        seq_len: int,
        fill_id: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        stream_lanes: int = 16,
        apart: bool = False,
    ) -> None:
        """Batches of `batch_size` rows for `rank` of `world_size` data-parallel ranks.

        Args:
            sources: what the mixture's sources are.
            mixture: which row comes from which source.
            seq_len: T.
            fill_id: input where a row has no tokens.
            batch_size: B, of this rank.
            rank: of the data-parallel group.
            world_size: of the data-parallel group.
            num_workers: processes that read ahead; 0 reads in this one.
            stream_lanes: into how many lanes streams are dealt.
            apart: whether documents of a row are kept apart.
        """
        n_lanes = stream_lanes if any(isinstance(s, Stream) for s in sources) else 0
        self._shares = _Shares(
            sources,
            mixture,
            seq_len=seq_len,
            fill_id=fill_id,
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
            n_lanes=n_lanes,
            apart=apart,
        )
        self._position, self._lanes, self._iterating = 0, dict.fromkeys(range(n_lanes), "null"), False
        # Documents differ in length: a process that meets a long one lives on what it has read ahead.
        ahead = {"prefetch_factor": 8} if num_workers else {}
        if num_workers:
            atexit.register(_kill_readers)
        super().__init__(
            self._shares, batch_size=None, num_workers=num_workers, worker_init_fn=_leave_signals_to_parent, **ahead
        )

    def __iter__(self) -> Iterator[Batch]:
        shares = self._shares
        shares.position, shares.lanes = self._position, dict(self._lanes)
        self._start, self._iterating = self._position, True
        parts: list[dict[str, Any]] = []
        n = max(1, self.num_workers)
        first = 0
        for part in self._parts():
            if "error" in part:
                raise DataError(part["error"])
            parts.append(part)
            if len(parts) < n:
                continue
            batch = [torch.empty(shares.batch_size, shares.seq_len, dtype=torch.int64) for _ in part["rows"]]
            for process, share in enumerate(parts):
                at = slice((process - first) % n, None, n)
                for whole, rows in zip(batch, share["rows"], strict=True):
                    whole[at] = rows
                self._lanes |= share["lanes"]
            parts, first = [], first + shares.batch_size
            # Counted when a batch is handed out, not when it is read ahead.
            self._position += shares.batch_size * shares.world_size
            inputs, labels, *positions = batch
            yield {"input": inputs} | ({"document_positions": positions[0]} if positions else {}), labels

    def _parts(self) -> Iterator[dict[str, Any]]:
        try:
            yield from super().__iter__()
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise DataError(f"data.num_workers: a reading process was killed ({str(error).splitlines()[0]})") from None

    @property
    def position(self) -> int:
        """The number of rows that all ranks together have taken."""
        return self._position

    def origins(self, first: int, n_rows: int) -> list[dict[str, int]]:
        """Where rows `first` to `first + n_rows - 1` of the run are from.

        For each its number (`row`), the index of its source and, of prepared text, the epoch and the row of the source
        (`index`); of a stream, the lane.
        """
        return self._shares.origins(np.arange(first, first + n_rows))

    def state_dict(self) -> dict[str, Any]:
        """The rows taken so far by all ranks together, and the places of the lanes that this rank reads.

        Before the first batch it has all lanes: ranks that are to load a state need the names of everything in it.
        """
        lanes = self._lanes
        if self._iterating:
            apart = math.gcd(self._shares.world_size, max(1, len(lanes)))
            mine = (self._start + self._shares.rank) % apart
            lanes = {n: state for n, state in lanes.items() if n % apart == mine}
        return {"position": self._position, **{f"lane_{n}": state for n, state in lanes.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the row after those taken; takes effect at the next `iter()`."""
        self._position = int(state_dict["position"])
        self._lanes |= {int(k.removeprefix("lane_")): v for k, v in state_dict.items() if k.startswith("lane_")}
        self._iterating = False


def validation_batches(
    rows: Rows,
    *,
    max_rows: int | None,
    batch_size: int,
    fill_id: int,
    rank: int = 0,
    world_size: int = 1,
    apart: bool = False,
) -> Iterator[tuple[torch.Tensor, ...]]:
    """(inputs [B, T], labels [B, T]) over rows spread evenly over the text, each row on one rank.

    Where documents are kept apart, the positions of the tokens in their documents, [B, T], are the third.
    All ranks get the same number of batches; what is missing at the end is filled with rows without labels.
    """
    n_rows = len(rows) if max_rows is None else min(max_rows, len(rows))
    chosen = [i * len(rows) // n_rows for i in range(n_rows)]
    n_batches = -(-n_rows // (batch_size * world_size))
    chosen += [len(rows)] * (n_batches * batch_size * world_size - n_rows)
    for start in range(rank * batch_size, len(chosen), batch_size * world_size):
        inputs = torch.full((batch_size, rows.seq_len), fill_id)
        labels = torch.full((batch_size, rows.seq_len), IGNORE_INDEX)
        positions = torch.zeros_like(inputs)
        for i, row in enumerate(chosen[start : start + batch_size]):
            rows.fill(row, inputs[i].numpy(), labels[i].numpy(), positions[i].numpy() if apart else None)
        yield (inputs, labels, positions) if apart else (inputs, labels)
