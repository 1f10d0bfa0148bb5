"""How long training stands still for checkpoints, and how long they take to be written."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class CheckpointClock:
    """Seconds since they were last taken. The writing may be timed on another thread than the waiting."""

    def __init__(self) -> None:
        self._waited = 0.0
        self._written: float | None = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in which training stands still."""
        begun = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begun

    def written(self, begun: float) -> None:
        """A checkpoint is complete whose writing began at this time of time.perf_counter."""
        self._written = time.perf_counter() - begun

    def take(self) -> dict[str, float]:
        """The metrics, as far as there is something to be said, and begin anew."""
        waited, self._waited = self._waited, 0.0
        written, self._written = self._written, None
        metrics = {"train/checkpoint_seconds": waited} if waited else {}
        return metrics if written is None else metrics | {"train/checkpoint_write_seconds": written}
