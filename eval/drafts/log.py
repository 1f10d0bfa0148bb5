"""The .samples.jsonl of a run: a line for each sample as it is done, so that a killed run goes on where it was."""

import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from conf.strict import ConfigError
from data.config import DataError
from eval.drafts.sample import DraftedSample, from_json


class Log:
    """Samples by id. The first line holds the settings, of which the file's name carries a fingerprint."""

    def __init__(self, path: Path, settings: Mapping[str, Any], *, fresh: bool) -> None:
        """Read what is there, unless it is to be made anew.

        Raises ConfigError while another process writes the file, DataError when it is damaged.
        """
        self.path, self.samples = path, dict[str, DraftedSample]()
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise ConfigError(
                f"output: {path} is being written by another process; wait, or give another output"
            ) from None
        if fresh:
            self._file.truncate(0)
        header = _line({"settings": settings})
        end = self._read(header)
        self._file.truncate(end)
        if not end:
            self._write(header)

    def __enter__(self) -> "Log":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, sample: DraftedSample) -> None:
        """On disk when this returns."""
        self._write(_line(sample.as_json()))
        self.samples[sample.id] = sample

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._file.flush()

    def _read(self, header: bytes) -> int:
        """Take over what is whole; where it ends. A kill leaves half a line at the end."""
        self._file.seek(0)
        lines = [line for line in self._file.readlines() if line.endswith(b"\n")]
        if lines and lines[0] != header:
            raise DataError(f"{self.path}:1: not the settings of this run; fresh=true writes the file anew")
        for number, line in enumerate(lines[1:], 2):
            try:
                sample = from_json(json.loads(line))
            except (ValueError, TypeError, KeyError):
                raise DataError(f"{self.path}:{number}: not a sample; fresh=true writes the file anew") from None
            self.samples[sample.id] = sample
        return sum(map(len, lines))


def _line(value: Any) -> bytes:
    return (json.dumps(value, sort_keys=True) + "\n").encode()
