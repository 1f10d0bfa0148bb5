"""Signals that announce the end of a job, and how all ranks stop after the same step.

SIGTERM (torchrun, Slurm's preemption and requeue) and SIGUSR1 (Slurm's --signal before the time limit) are noted when
they come, any number of times. At the beginning of each step the ranks ask each other for it: one all-reduce of 8 bytes
between CPUs, a few tenths of a millisecond, which no GPU waits for. When one rank has been signalled, the step that
begins is the last: it is logged, validated where that is due, and saved. So a signal costs at most the rest of its
step, one more step and the save; cluster.save_seconds after it the process ends in any case.
"""

import os
import signal
import sys
import threading
import time
from datetime import timedelta
from types import FrameType

import torch
import torch.distributed as dist

from train.errors import PREEMPTED

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preemption:
    """Whether, and by what, this process has been told to stop."""

    def __init__(self, save_seconds: float) -> None:
        self.save_seconds = save_seconds
        self.signal: signal.Signals | None = None
        """The first that has come to this rank."""
        self.at = 0.0
        """When it came, by time.monotonic()."""
        self._timer: threading.Timer | None = None

    def listen(self) -> None:
        """Note the signals from now on, in place of what they did. For the main thread."""
        for number in SIGNALS:
            signal.signal(number, self._note)

    def agreed(self, group: dist.ProcessGroup | None) -> bool:
        """Whether any rank of a `cpu_group` has been signalled: the same answer on all of them, which all call this."""
        if group is None:
            return self.signal is not None
        signalled = torch.tensor(int(self.signal is not None))
        dist.all_reduce(signalled, dist.ReduceOp.MAX, group)
        return bool(signalled)

    def end(self) -> None:
        """What was to be done before the deadline is done."""
        if self._timer is not None:
            self._timer.cancel()

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self.at = signal.Signals(number), time.monotonic()
            self._timer = threading.Timer(self.save_seconds, self._too_late)
            self._timer.daemon = True
            self._timer.start()

    def _too_late(self) -> None:
        text = f"{self._name()}: no checkpoint within cluster.save_seconds={self.save_seconds:g}; the last one counts\n"
        os.write(sys.stderr.fileno(), text.encode())
        os._exit(PREEMPTED)

    def _name(self) -> str:
        return "signal" if self.signal is None else self.signal.name

    def __str__(self) -> str:
        """`SIGTERM 1.5 s ago`, or where another rank was signalled."""
        return (
            "another rank's signal" if self.signal is None else f"{self._name()} {time.monotonic() - self.at:.1f} s ago"
        )


def cpu_group(timeout_seconds: float) -> dist.ProcessGroup | None:
    """All ranks, for tensors on the CPU; None for a single one. All ranks call this."""
    if dist.get_world_size() == 1:
        return None
    if dist.get_backend() == dist.Backend.GLOO:
        return dist.group.WORLD
    return dist.new_group(backend=dist.Backend.GLOO, timeout=timedelta(seconds=timeout_seconds))
