"""A log of JSON lines that another process appends to: each time only what is new is read."""

import os
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conf.metrics_file import parse_rows


class GrowingLog:
    """Hands each row on once. A file that has been cut back or replaced is read anew, after `forget`."""

    def __init__(self, path: Path, take: Callable[[dict[str, Any]], object], forget: Callable[[], object], key: str):
        self.path, self.key = path, key
        self._take, self._forget = take, forget
        self._file: tuple[int, int] | None = None
        self._end = 0
        self.damaged = 0
        """Lines so far that are no rows."""

    def read(self) -> None:
        """Take what has been written since the last call, up to the last whole line. A missing file has no lines."""
        try:
            stream = self.path.open("rb")
        except FileNotFoundError:
            self._begin(None)
            return
        with stream:
            stat = _stat(stream.fileno())
            if stat[:2] != self._file or stat[2] < self._end:
                self._begin(stat[:2])
            stream.seek(self._end)
            content = stream.read()
        content = content[: content.rfind(b"\n") + 1]
        self._end += len(content)
        rows, damaged = parse_rows(content, self.key)
        self.damaged += damaged
        for row in rows:
            self._take(row)

    def _begin(self, file: tuple[int, int] | None) -> None:
        self._file, self._end, self.damaged = file, 0, 0
        self._forget()


def _stat(descriptor: int) -> tuple[int, int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino, found.st_size


class Metrics:
    """metrics.jsonl by key: of each the steps and the values, in numbers of 8 bytes, for runs of millions of steps."""

    def __init__(self, path: Path) -> None:
        self.log = GrowingLog(path, self._take, self._forget, "step")
        self.series: dict[str, tuple[array, array]] = {}
        self.last_step = 0

    def _take(self, row: dict[str, Any]) -> None:
        step = row["step"]
        self.last_step = max(self.last_step, step)
        for key, value in row.items():
            if key != "step" and isinstance(value, int | float):
                steps, values = self.series.setdefault(key, (array("q"), array("d")))
                steps.append(step)
                values.append(value)

    def _forget(self) -> None:
        self.series, self.last_step = {}, 0
