"""The records of a benchmark, by sample and setting, in a file from which a killed one goes on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from data.config import DataError
from eval.measure.records import Record, record_from_json
from eval.measure.samples_file import samples_log
from eval.setting import Setting


class Ledger:
    """Records by sample, each sample with all of its settings."""

    def __init__(self, path: Path, settings: Mapping[str, Any], expected: Sequence[Setting], *, fresh: bool) -> None:
        """Read what is there, and drop what is not a whole sample.

        Args:
            path: of the file.
            settings: all that the numbers depend on.
            expected: the settings of every sample, without all of which it is not done.
            fresh: begin anew.

        Raises ConfigError while another process writes the file, DataError when it is damaged.
        """
        self.path = path
        self._log = samples_log(path, settings, record_from_json, Record.as_json, fresh=fresh)
        try:
            self._log.keep(self._n_whole(set(expected)))
        except BaseException:
            self._log.close()
            raise
        self.done = {record.key for record in self.entries}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.close()

    @property
    def entries(self) -> list[Record]:
        """All records, in the order in which they came."""
        return self._log.entries

    def add(self, entries: Sequence[Record]) -> None:
        """All records of one sample."""
        self._log.add(entries)
        self.done |= {record.key for record in entries}

    def _n_whole(self, expected: set[Setting]) -> int:
        """How many records belong to whole samples. A kill leaves one without all its settings, at the end alone."""
        n_whole = 0
        waiting: list[Record] = []
        for i, record in enumerate(self.entries):
            if waiting and waiting[0].key != record.key:
                raise DataError(f"{self.path}:{i + 2}: a sample before is not whole; fresh=true writes the file anew")
            waiting.append(record)
            if {r.setting for r in waiting} == expected:
                waiting, n_whole = [], i + 1
        return n_whole
