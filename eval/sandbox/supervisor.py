"""Process 1 of the sandbox: starts the program, holds it to its limits, and says what became of it."""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any

from eval.sandbox.program import MEMORY_ERROR, become

_TICK_MS = 20
_TAIL = 2000
_LIFELINE = 0  # standard input, which ends when whoever ordered has gone
_PAGE = os.sysconf("SC_PAGE_SIZE")


def supervise(order: dict[str, Any], proc: int, drop: Callable[[], None]) -> dict[str, Any]:
    """Run the order's program; the fields of an Outcome, or `error` when it could not be begun.

    Args:
        order: `program`, `limits` and `shown`.
        proc: descriptor of /proc.
        drop: gives up the rights of the process that becomes the program.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 hears no signal of its children but those it has asked for
    word = os.urandom(16).hex().encode()
    pipes = [os.pipe() for _ in range(3)]
    writers = (pipes[0][1], pipes[1][1], pipes[2][1])
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        become(order, word, writers, drop)
    for writer in writers:
        os.close(writer)
    watch = _Watch(child, [reader for reader, _ in pipes], order["limits"], proc)
    stopped = watch.until_it_ends(begun + order["limits"]["wall_seconds"])
    seconds = time.monotonic() - begun
    code, cpu = watch.kill_all()
    stdout, stderr, said = watch.last_words()
    if said.startswith(b"!" + word):
        return {"error": said.removeprefix(b"!" + word).decode()}
    return {
        "status": stopped or _status(code, cpu, order["limits"]["cpu_seconds"], said.startswith(word)),
        "exit_code": code,
        "seconds": seconds,
        "stdout": stdout.decode(errors="replace"),
        "stderr": stderr.decode(errors="replace"),
    }


def _status(code: int, cpu: float, cpu_limit: int, to_the_end: bool) -> str:
    if code == 0 and to_the_end:
        return "passed"
    # The kernel's limit counts whole ticks, and so comes early on a busy machine.
    if code in (-signal.SIGKILL, -signal.SIGXCPU) and cpu > 0.5 * cpu_limit:
        return "timed_out"
    if code < 0:
        return "killed"
    return "memory" if code == MEMORY_ERROR else "failed"


class _Watch:
    """The program's processes and what they write."""

    def __init__(self, child: int, readers: list[int], limits: dict[str, Any], proc: int) -> None:
        self.child, self.readers, self.limits, self.proc = child, readers, limits, proc
        self.ended: tuple[int, float] | None = None
        self.written = dict.fromkeys(readers, 0)
        self.tails = dict.fromkeys(readers, b"")
        self.poll = select.poll()
        for descriptor in (*readers, os.pidfd_open(child), _LIFELINE):
            self.poll.register(descriptor, select.POLLIN)

    def until_it_ends(self, deadline: float) -> str | None:
        """Wait for the program's first process. Returns the limit that it passed, or None."""
        while True:
            for descriptor, _ in self.poll.poll(_TICK_MS):
                if descriptor == _LIFELINE:
                    os._exit(1)
                if descriptor in self.readers and not self._read(descriptor):
                    self.poll.unregister(descriptor)
            self._reap()
            if self._output() > self.limits["output_bytes"]:
                return "output"
            if self.ended:
                return None
            if time.monotonic() > deadline:
                return "timed_out"
            if self._resident() > self.limits["memory_bytes"]:
                return "memory"

    def kill_all(self) -> tuple[int, float]:
        """Exit status and CPU seconds of the first process, when nothing else is left either."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        while not self.ended:
            self._reap(block=True)
        return self.ended

    def last_words(self) -> list[bytes]:
        """The ends of what was written."""
        for reader in self.readers:
            os.set_blocking(reader, False)
            with contextlib.suppress(BlockingIOError):  # nobody writes any more: what is there is little
                while self._read(reader):
                    pass
        return [self.tails[reader][-_TAIL:] for reader in self.readers]

    def _output(self) -> int:
        return sum(self.written[reader] for reader in self.readers[:2])

    def _read(self, reader: int) -> bool:
        data = os.read(reader, 1 << 16)
        self.written[reader] += len(data)
        self.tails[reader] = (self.tails[reader] + data)[-_TAIL:]
        return bool(data)

    def _reap(self, *, block: bool = False) -> None:
        """Take note of the processes that have ended, orphans as well: they count until somebody does."""
        try:
            while True:
                pid, status, usage = os.wait4(-1, 0 if block else os.WNOHANG)
                if pid == self.child:
                    self.ended = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
                if pid == 0 or (self.ended and block):
                    return
        except ChildProcessError:
            return

    def _resident(self) -> int:
        """Bytes in memory of all processes but this one; what they share counts for each."""
        pages = 0
        for name in os.listdir(self.proc):
            if name.isdecimal() and name != "1":
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                    pages += self._pages(name)
        return pages * _PAGE

    def _pages(self, pid: str) -> int:
        statm = os.open(f"{pid}/statm", os.O_RDONLY, dir_fd=self.proc)
        try:
            return int(os.read(statm, 200).split()[1])
        finally:
            os.close(statm)
