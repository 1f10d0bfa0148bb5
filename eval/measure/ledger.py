"""The records of a benchmark, by sample and setting, in a file from which a killed one goes on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.config import DataError
from eval.measure.log import Log
from eval.measure.records import Record, record_from_json
from eval.setting import Setting


class Ledger(Log[Record]):
    """Records by sample, each with all of its settings."""

    def __init__(self, path: Path, settings: Mapping[str, Any], expected: Sequence[Setting], *, fresh: bool) -> None:
        """Read what is there, like `Log`, and drop what is not a whole sample.

        Args:
            path: of the file.
            settings: all that the numbers depend on.
            expected: the settings of every sample, without all of which it is not done.
            fresh: begin anew.
        """
        super().__init__(path, settings, record_from_json, fresh=fresh)
        try:
            self.keep(self._n_whole(set(expected)))
        except BaseException:
            self._file.close()
            raise
        self.done = {record.key for record in self.entries}

    def add(self, entries: Sequence[Record]) -> None:
        """All records of one sample."""
        super().add(entries)
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
