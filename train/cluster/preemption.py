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
from types import FrameType

from train.errors import PREEMPTED

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


def under_torchrun() -> bool:
    """Whether torchrun has started this rank. It takes any status but 0 for a crash, and may start the ranks again."""
    return "TORCHELASTIC_RUN_ID" in os.environ


class Preemption:
    """Whether, and by what, this process has been told to stop."""

    def __init__(self, save_seconds: float) -> None:
        self.save_seconds = save_seconds
        self.training = False
        """Whether there are steps that could be lost; before there are, a signal ends the process at once."""
        self.signal: signal.Signals | None = None
        """The first that has come to this rank."""
        self.at = 0.0
        """When it came, by time.monotonic()."""
        self._timer: threading.Timer | None = None

    def listen(self) -> None:
        """Note the signals from now on, in place of what they did. For the main thread."""
        for number in SIGNALS:
            signal.signal(number, self._note)

    def end(self) -> None:
        """What was to be done before the deadline is done."""
        if self._timer is not None:
            self._timer.cancel()

    def _note(self, number: int, _: FrameType | None) -> None:
        if not self.training:
            sys.exit(0 if under_torchrun() else PREEMPTED)
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
