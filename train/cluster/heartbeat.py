"""Which rank does not answer: each writes a sign of life into the ranks' store, and watches that of the next one.

A stopped process, a dead node or a rank that is stuck in a library without ever letting Python run shows no sign. After
cluster.timeout_seconds whoever watches it says which rank it is, in which step it was and what the others wait for, and
ends the run. A rank that lives but is not where the others wait is found by the collective's own time-out.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from torch._C._distributed_c10d import _dump_fr_trace_json  # type: ignore[attr-defined]

from train.errors import PREEMPTED

MARGIN_SECONDS = 30.0
"""How much later than a missing sign of life the time-out of a collective comes."""


class Heartbeat:
    """The rank's sign of life, and its eye on the next rank; made after the process group, by all ranks."""

    def __init__(self, timeout_seconds: float, step: Callable[[], int], before_exit: Callable[[], object]) -> None:
        """`step` is asked for the current step; `before_exit` is called when the run is given up."""
        self._timeout, self._step, self._before_exit = timeout_seconds, step, before_exit
        self._rank, self._n_ranks = dist.get_rank(), dist.get_world_size()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        if self._n_ranks > 1:
            # A connection of its own: the main thread may be waiting on the other.
            self._store = dist.distributed_c10d._get_default_store().clone()  # type: ignore[attr-defined]
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """All ranks have come to the end: no longer watch."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(5)

    def _run(self) -> None:
        pause = min(10.0, self._timeout / 10)
        watched = (self._rank + 1) % self._n_ranks
        beats, seen, seen_at = 0, b"", time.monotonic()
        while not self._stopped.wait(pause):
            beats += 1
            me = {"beats": beats, "step": self._step(), "pid": os.getpid(), "host": socket.gethostname()}
            try:
                self._store.set(f"beat/{self._rank}", json.dumps(me))
                beat = self._store.get(f"beat/{watched}") if self._store.check([f"beat/{watched}"]) else b""
            except dist.DistError:  # the store has gone, and with it the launcher or rank 0
                return
            now = time.monotonic()
            if beat != seen:
                seen, seen_at = beat, now
            elif now - seen_at > self._timeout and not self._stopped.is_set():
                self._give_up(watched, json.loads(beat) if beat else None)

    def _give_up(self, rank: int, last: dict[str, Any] | None) -> None:
        where = f"process {last['pid']} on {last['host']}, step {last['step']}" if last else "before its first step"
        line = (
            f"error: rank {rank} ({where}) has shown no sign of life for cluster.timeout_seconds={self._timeout:g};"
            f" rank {self._rank} is in step {self._step()}, its last collective {last_collective()};"
            " the same command continues from the last checkpoint\n"
        )
        self._before_exit()
        os.write(sys.stderr.fileno(), line.encode())
        os._exit(PREEMPTED)


def last_collective() -> str:
    """Name and number of the collective that this rank has begun last, from torch's flight recorder."""
    entries = json.loads(_dump_fr_trace_json()).get("entries", [])
    if not entries:
        return "unknown"
    last = max(entries, key=lambda entry: entry["record_id"])
    return f"{last['profiling_name']} number {last['collective_seq_id']} of group {last['process_group'][1]}"
