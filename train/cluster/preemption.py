"""Signals that announce the end of a job, and how all ranks stop after the same step.

SIGTERM (torchrun, Slurm's preemption and requeue) and SIGUSR1 (Slurm's --signal before the time limit) are noted when
they come, any number of times. At the beginning of each step the ranks ask each other for it: one all-reduce of 8 bytes
between CPUs, a few tenths of a millisecond, which no GPU waits for. When one rank has been signalled, the step that
begins is the last: it is logged, validated where that is due, and saved. So a signal costs at most the rest of its
step, one more step and the save; cluster.save_seconds after it the process ends in any case. Before the first step
there is nothing to save, and the process ends at once.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from train.errors import PREEMPTED

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


def under_torchrun() -> bool:
    """Whether torchrun has started this rank. It takes any status but 0 for a crash, and may start the ranks again."""
    return "TORCHELASTIC_RUN_ID" in os.environ


class Preemption:
    """Whether, and by what, this process has been told to stop."""

    def __init__(self, save_seconds: float, before_exit: Callable[[], object] = lambda: None) -> None:
        """`before_exit` is called where the process ends at once, before the first step or at the deadline."""
        self.save_seconds, self._before_exit = save_seconds, before_exit
        self.training = False
        """Whether there are steps that could be lost."""
        self.signal: signal.Signals | None = None
        """The first that has come to this rank."""
        self.at = 0.0
        """When it came, by time.monotonic()."""
        self._ended = threading.Event()

    def listen(self) -> None:
        """Note the signals from now on, in place of what they did. For the main thread.

        A thread does it: the main one may be inside a library that waits for another rank, and not hear of them.
        """
        readable, writable = os.pipe()
        os.set_blocking(writable, False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(readable,), daemon=True).start()

    def end(self) -> None:
        """What was to be done before the deadline is done."""
        self._ended.set()

    def ignore(self) -> None:
        """The signals no longer matter: without this, one would kill the process while Python shuts down."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _watch(self, readable: int) -> None:
        while self.signal is None:
            number = os.read(readable, 1)[0]
            if number in SIGNALS:
                self.signal, self.at = signal.Signals(number), time.monotonic()
        if not self.training:
            self._exit(f"{self.signal.name} before the first step; the same command continues")
        if not self._ended.wait(self.save_seconds):
            late = f"no checkpoint within cluster.save_seconds={self.save_seconds:g}; the last one counts"
            self._exit(f"{self.signal.name}: {late}")

    def _exit(self, message: str) -> None:
        self._before_exit()
        if os.environ.get("RANK", "0") == "0":
            os.write(sys.stderr.fileno(), (message + "\n").encode())
        os._exit(0 if under_torchrun() else PREEMPTED)

    def __str__(self) -> str:
        """`SIGTERM 1.5 s ago`, or where another rank was signalled."""
        if self.signal is None:
            return "another rank's signal"
        return f"{self.signal.name} {time.monotonic() - self.at:.1f} s ago"
