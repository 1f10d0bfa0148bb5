"""A file of JSON lines that long work appends to, so that a killed command goes on where it was.

A line is written in one go; a kill can cut the last one short, and reading drops it. While a process has the file open
no other can write it.
"""

import fcntl
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from conf.strict import ConfigError
from data.config import DataError

EntryT = TypeVar("EntryT")


def json_line(value: Any, *, sort_keys: bool = True) -> bytes:
    """A value as one line."""
    return (json.dumps(value, sort_keys=sort_keys) + "\n").encode()


class JsonLog(Generic[EntryT]):
    """Entries in the order in which they came, after a first line that says what they belong to."""

    def __init__(
        self,
        path: Path,
        *,
        header: Any = None,
        read: Callable[[Any], EntryT],
        write: Callable[[EntryT], Any],
        mismatch: str = "",
        sort_keys: bool = False,
        fresh: bool = False,
        remedy: str = "fresh=true writes the file anew",
    ) -> None:
        """Open the file and read the entries that are there.

        Args:
            path: of the file.
            header: what all entries depend on, which the first line holds; None: there is no such line.
            read: makes an entry of a line's value; raises ValueError, TypeError or KeyError for what is none.
            write: the reverse.
            mismatch: the error where the file has another header.
            sort_keys: write the keys of each entry in the order of the alphabet.
            fresh: begin anew.
            remedy: the end of the error where a line is damaged.

        Raises ConfigError while another process writes the file, DataError when it is damaged or has another header.
        """
        self.path, self.entries, self._write, self._sort_keys = path, list[EntryT](), write, sort_keys
        self._header = b"" if header is None else json_line(header)
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise ConfigError(
                f"output: {path} is being written by another process; wait, or give another output"
            ) from None
        try:
            self._ends = self._begin(header, read, fresh, mismatch, remedy)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes write the file."""
        self._file.close()

    def add(self, entries: Sequence[EntryT]) -> None:
        """Write them in one go; a kill after this does not lose them."""
        lines = [json_line(self._write(entry), sort_keys=self._sort_keys) for entry in entries]
        self._append(b"".join(lines))
        self.entries += entries
        for line in lines:
            self._ends.append(self._ends[-1] + len(line))

    def keep(self, n: int) -> None:
        """Drop all but the first n entries."""
        del self.entries[n:], self._ends[n + 1 :]
        self._file.truncate(self._ends[n])

    def remove(self) -> None:
        """Delete the file: what it was kept for is done."""
        self.path.unlink(missing_ok=True)
        self.close()

    def _begin(self, header: Any, read: Callable[[Any], EntryT], fresh: bool, mismatch: str, remedy: str) -> list[int]:
        """Read the whole lines and drop half a one at the end; returns where the header and each entry end."""
        self._file.seek(0)
        lines = [] if fresh else [line for line in self._file.readlines() if line.endswith(b"\n")]
        n_header = int(header is not None)
        if n_header and lines and not _holds(lines[0], header):
            raise DataError(mismatch)
        ends = [len(lines[0]) if n_header and lines else len(self._header)]
        for number, line in enumerate(lines[n_header:], n_header + 1):
            try:
                self.entries.append(read(json.loads(line)))
            except (ValueError, TypeError, LookupError):
                raise DataError(f"{self.path}:{number}: not a record; {remedy}") from None
            ends.append(ends[-1] + len(line))
        self._file.truncate(ends[-1] if lines else 0)
        if not lines:
            self._append(self._header)
        return ends

    def _append(self, content: bytes) -> None:
        self._file.write(content)
        self._file.flush()


def _holds(line: bytes, header: Any) -> bool:
    try:
        return bool(json.loads(line) == json.loads(json_line(header)))
    except ValueError:
        return False
