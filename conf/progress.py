"""How far long work has come: a bar on a terminal, and lines at growing intervals where there is none.

Under nohup, tee, Slurm or a notebook a bar would fill the log, and nothing at all looks like a process that hangs.
"""

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import Protocol, Self, TextIO, TypeVar

ItemT = TypeVar("ItemT")

FIRST = 5.0
"""Seconds until the first line."""
LONGEST = 300.0
"""Seconds between two lines, at most."""


class Bar(Protocol):
    """What shows progress; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> object: ...

    def update(self, n: float = 1) -> object:
        """So much more is done."""

    def set_postfix_str(self, s: str = "", refresh: bool = False) -> None:
        """Something to show behind the figures."""


def progress(what: str, *, unit: str, total: float | None = None, initial: float = 0) -> Bar:
    """Progress of `what`, to be updated as the work goes on.

    Args:
        what: name of the work, for the user.
        unit: in which it is counted, in the singular; "B" for bytes.
        total: how much there is; None: not known.
        initial: how much an earlier start has done.
    """
    if not sys.stderr.isatty():
        return Lines(what, unit=unit, total=total, initial=initial)
    from tqdm import tqdm

    return tqdm(desc=what, unit=unit, total=total, initial=initial, unit_scale=unit == "B", leave=False)


def each(items: Iterable[ItemT], what: str, *, unit: str, total: int | None = None) -> Iterator[ItemT]:
    """The items, with the progress of the loop over them."""
    n_items = len(items) if total is None and isinstance(items, Sized) else total
    with progress(what, unit=unit, total=n_items) as bar:
        for item in items:
            yield item
            bar.update()


def intervals() -> Iterator[float]:
    """Seconds to wait before each line: 5, 10, 20, ... and from then on `LONGEST`."""
    seconds = FIRST
    while True:
        yield min(seconds, LONGEST)
        seconds *= 2


def duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


class Lines:
    """Writes a line now and then from a thread that otherwise sleeps, also while a single item takes long."""

    def __init__(
        self, what: str, *, unit: str, total: float | None = None, initial: float = 0, out: TextIO | None = None
    ) -> None:
        self._what, self._unit, self._total, self._initial = what, unit, total, initial
        self._out, self._done, self._postfix = out or sys.stderr, initial, ""
        self._start, self._reported, self._over = time.monotonic(), False, threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"progress of {what}", daemon=True)

    def __enter__(self) -> Self:
        self._start = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._reported and kind is None:
            self._write(f"{self._what}: done, {self._amount(self._done)} in {duration(self._elapsed())}")

    def update(self, n: float = 1) -> None:
        """So much more is done."""
        self._done += n

    def set_postfix_str(self, s: str = "", refresh: bool = False) -> None:
        """Something to show behind the figures; `refresh` is tqdm's."""
        self._postfix = s

    def line(self, elapsed: float) -> str:
        """What is done after so many seconds, and how long the rest will take at that speed."""
        here = self._done - self._initial
        if self._total is None:
            parts = [self._amount(self._done)]
        else:
            parts = [f"{self._number(self._done)} of {self._amount(self._total)}"]
        parts.append(f"{duration(elapsed)} elapsed")
        if self._total is not None and here > 0:
            parts.append(f"about {duration(elapsed / here * max(0.0, self._total - self._done))} left")
        return f"{self._what}: {', '.join(parts)}" + (f" ({self._postfix})" if self._postfix else "")

    def _run(self) -> None:
        for seconds in intervals():
            if self._over.wait(seconds):
                return
            self._reported = True
            self._write(self.line(self._elapsed()))

    def _elapsed(self) -> float:
        return time.monotonic() - self._start

    def _amount(self, n: float) -> str:
        if self._unit == "B":
            return f"{self._number(n)} MB"
        plural = "es" if self._unit.endswith(("ch", "s", "x")) else "s"
        return f"{self._number(n)} {self._unit}{'' if n == 1 else plural}"

    def _number(self, n: float) -> str:
        return f"{n / 1e6:,.1f}" if self._unit == "B" else f"{n:,.0f}"

    def _write(self, line: str) -> None:
        print(line, file=self._out, flush=True)
