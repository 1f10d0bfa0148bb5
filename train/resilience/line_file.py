"""A file of lines that a full disk does not stop: what cannot be written now is written later."""

import logging
import os
from pathlib import Path

from conf.errors import reason

logger = logging.getLogger(__name__)


class LineFile:
    """Appends lines, written through at once. An error is a warning, once, until writing works again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._waiting = b""
        self._failing = False

    def write(self, line: str) -> None:
        """Append a line, after those that are still waiting."""
        self._waiting += line.encode() + b"\n"
        self._flush()

    def close(self) -> None:
        """Try once more, and close the file."""
        if self._waiting:
            self._flush()
        if lost := self._waiting.count(b"\n"):
            logger.warning("%s: the last %d lines could not be written", self.path, lost)
            self._waiting = b""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _flush(self) -> None:
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            while self._waiting:
                # A disk that fills up takes a part of it: what follows goes on from there.
                self._waiting = self._waiting[os.write(self._descriptor, self._waiting) :]
        except OSError as error:
            if not self._failing:
                logger.warning(
                    "%s: cannot be written (%s); training goes on, and its lines wait until they can be; free space",
                    self.path,
                    reason(error),
                )
            self._failing = True
        else:
            if self._failing:
                logger.warning("%s: can be written again, and nothing is lost", self.path)
            self._failing = False
