"""The .samples.jsonl of a measurement: written sample by sample, so that a killed one goes on where it was.

The file's name carries a fingerprint of all that the numbers depend on; of the code that measures a digest, not the
commit, which changes with a page of documentation. Other settings therefore write another file: nothing is mixed, and
nothing is lost by trying something else in between.
"""

import fcntl
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from conf.errors import naming
from conf.strict import ConfigError
from data.config import DataError


class Entry(Protocol):
    """What a line holds."""

    def as_json(self) -> dict[str, Any]:
        """What json can write."""


EntryT = TypeVar("EntryT", bound=Entry)


def log_path(output: Path, settings: Mapping[str, Any]) -> Path:
    """Beside the output: benchmark.json -> benchmark.samples-1a2b3c4d.jsonl."""
    fingerprint = hashlib.sha256(_line(settings)[:-1]).hexdigest()[:8]
    return output.with_name(f"{output.stem}.samples-{fingerprint}.jsonl")


def why_anew(path: Path, settings: Mapping[str, Any]) -> str | None:
    """For a file that is not there yet, the nearest one beside it and in what its settings differ; else None."""
    if path.exists():
        return None
    wanted: dict[str, Any] = json.loads(_line(settings))
    found = []
    for other in path.parent.glob(f"{path.name.partition('.samples-')[0]}.samples-*.jsonl"):
        with other.open("rb") as file:
            try:
                theirs = json.loads(file.readline())["settings"]
                keys = sorted(k for k in wanted.keys() | theirs.keys() if wanted.get(k) != theirs.get(k))
            except (ValueError, LookupError, TypeError, AttributeError):
                continue
        found.append((len(keys), other.name, ", ".join(keys)))
    return f"begins anew: {min(found)[1]} is of other {min(found)[2]}" if found else None


class Log(Generic[EntryT]):
    """Entries in the order in which they came. The file's first line holds the settings."""

    def __init__(
        self, path: Path, settings: Mapping[str, Any], read: Callable[[Any], EntryT], *, fresh: bool = False
    ) -> None:
        """Read what is there, if it is not to be measured anew.

        Args:
            path: of the file.
            settings: all that the numbers depend on.
            read: the reverse of an entry's as_json; raises ValueError, TypeError or KeyError for what is none.
            fresh: begin anew.

        Raises ConfigError while another process writes the file, DataError when it is damaged.
        """
        self.path, self.entries = path, list[EntryT]()
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise ConfigError(
                f"output: {path} is being written by another process; wait, or give another output"
            ) from None
        try:
            self._ends = self._begin(_line({"settings": settings}), read, fresh)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with naming(self.path):  # what could not be written is tried once more
            self._file.close()

    def add(self, entries: Sequence[EntryT]) -> None:
        """Write them in one go; a kill after this does not lose them."""
        lines = [_line(entry.as_json()) for entry in entries]
        self._write(b"".join(lines))
        self.entries += entries
        for line in lines:
            self._ends.append(self._ends[-1] + len(line))

    def keep(self, n: int) -> None:
        """Only the first n entries."""
        del self.entries[n:], self._ends[n + 1 :]
        self._file.truncate(self._ends[n])

    def _begin(self, header: bytes, read: Callable[[Any], EntryT], fresh: bool) -> list[int]:
        """Take over what is whole, as a kill leaves half a line; where the header and each entry end."""
        self._file.seek(0)
        lines = [] if fresh else [line for line in self._file.readlines() if line.endswith(b"\n")]
        if lines and lines[0] != header:
            raise DataError(f"{self.path}:1: not the settings of this measurement; fresh=true writes the file anew")
        ends = [len(header)]
        for number, line in enumerate(lines[1:], 2):
            try:
                self.entries.append(read(json.loads(line)))
            except (ValueError, TypeError, KeyError):
                raise DataError(f"{self.path}:{number}: not a record; fresh=true writes the file anew") from None
            ends.append(ends[-1] + len(line))
        self._file.truncate(ends[-1] if lines else 0)
        if not lines:
            self._write(header)
        return ends

    def _write(self, content: bytes) -> None:
        with naming(self.path):
            self._file.write(content)
            self._file.flush()


def _line(value: Any) -> bytes:
    return (json.dumps(value, sort_keys=True) + "\n").encode()
