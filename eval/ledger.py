"""The .samples.jsonl of a measurement: written sample by sample, so that a killed one goes on where it was.

The file's name carries a fingerprint of all that the numbers depend on. Other settings therefore write another file:
nothing is mixed, and nothing is lost by trying something else in between.
"""

import fcntl
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from conf.strict import ConfigError
from data.config import DataError
from eval.records import Record, Setting, from_json


def ledger_path(output: Path, settings: Mapping[str, Any]) -> Path:
    """Beside the output: benchmark.json -> benchmark.samples-1a2b3c4d.jsonl."""
    fingerprint = hashlib.sha256(_line(settings).encode()).hexdigest()[:8]
    return output.with_name(f"{output.stem}.samples-{fingerprint}.jsonl")


class Ledger:
    """Records by sample. The first line holds the settings."""

    def __init__(self, path: Path, settings: Mapping[str, Any], expected: Sequence[Setting], *, fresh: bool) -> None:
        """Read what is there, if it is not to be measured anew.

        Args:
            path: of the file.
            settings: all that the numbers depend on.
            expected: the settings of every sample, without all of which it is not done.
            fresh: begin anew.

        Raises ConfigError while another process writes the file, DataError when it is damaged.
        """
        self.path, self.expected = path, set(expected)
        self.records: list[Record] = []
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise ConfigError(
                f"output: {path} is being written by another process; wait, or give another output"
            ) from None
        try:
            self._begin((_line({"settings": settings}) + "\n").encode(), fresh)
        except BaseException:
            self._file.close()
            raise
        self.done = {record.key for record in self.records}

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, records: Sequence[Record]) -> None:
        """All records of one sample; a kill after this does not lose them."""
        self._write("".join(_line(record.as_json()) + "\n" for record in records).encode())
        self.records += records
        self.done |= {record.key for record in records}

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._file.flush()

    def _begin(self, header: bytes, fresh: bool) -> None:
        end = 0 if fresh else self._read(header)
        self._file.truncate(end)
        if not end:
            self._write(header)

    def _read(self, header: bytes) -> int:
        """Take over what is whole; where it ends. A kill leaves half a line, or a sample without all its settings."""
        self._file.seek(0)
        lines = self._file.readlines()
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
        if not lines:
            return 0
        if lines[0] != header:
            raise DataError(f"{self.path}:1: not the settings of this measurement; fresh=true writes the file anew")
        end = at = len(header)
        waiting: list[Record] = []
        for number, line in enumerate(lines[1:], 2):
            at += len(line)
            try:
                record = from_json(json.loads(line))
            except (ValueError, TypeError):
                raise DataError(f"{self.path}:{number}: not a record; fresh=true writes the file anew") from None
            if waiting and waiting[0].key != record.key:
                raise DataError(f"{self.path}:{number}: a sample before is not whole; fresh=true writes the file anew")
            waiting.append(record)
            if {r.setting for r in waiting} == self.expected:
                self.records += waiting
                waiting, end = [], at
        return end


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
