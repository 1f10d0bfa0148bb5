"""Arrays on disk, read piece by piece with calls that can fail.

A memory map would be as fast, but a file that is cut short under it ends the process without a word (SIGBUS), and one
that is overwritten goes unnoticed.
"""

import hashlib
import os
import resource
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from conf.errors import reason
from data.config import DataError

_open: dict[str, int] = {}
"""Descriptors of the files opened last, in this process and in those forked from it; used from one thread."""


class FileArray:
    """A .npy file: `array[a:b]` and `array[i]` read so many rows. Other processes that it is sent to open it anew."""

    def __init__(self, path: Path, remedy: str, sha256: str | None = None) -> None:
        """Read the header. Raises OSError, and ValueError for what is no array or cut off.

        Args:
            path: of the file.
            remedy: what a user is to do when the file changes under the reader.
            sha256: of the file: one that only seems to have changed (a copy, `touch`) is compared with it.
        """
        self.path, self._key, self._remedy, self._sha256 = path, str(path), remedy, sha256
        if (before := _open.pop(self._key, None)) is not None:
            os.close(before)  # may be of a file that is no longer there
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in read_header:
                raise ValueError(f"format {version} of .npy")
            self.shape, fortran, self.dtype = read_header[version](stream)
            self._offset = stream.tell()
            self._stamp = _stamp(stream.fileno())
        self._length = int(self.shape[0])
        self._row_bytes = self.dtype.itemsize * prod(self.shape[1:])
        if fortran or self.dtype.hasobject:
            raise ValueError(f"{self.dtype} in the order of columns")
        if self._stamp[0] != self._offset + self._row_bytes * len(self):
            raise ValueError(f"{self._stamp[0]:,} bytes instead of {self._offset + self._row_bytes * len(self):,}")

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        """Like numpy's, for a row or consecutive rows, and whatever of them. Raises DataError when the file changed."""
        at, *rest = index if isinstance(index, tuple) else (index,)
        if not isinstance(at, slice):
            row = range(self._length)[at]
            return self._read(row, row + 1)[(0, *rest)]
        start, stop, step = at.indices(self._length)
        if step != 1:
            raise IndexError("consecutive rows only")
        read = self._read(start, max(start, stop))
        return read[(slice(None), *rest)] if rest else read

    def _read(self, start: int, stop: int) -> np.ndarray:
        try:
            file = self._file()
            if (stamp := _stamp(file)) != self._stamp:
                self._check_changed(file, stamp)
            n_bytes = self._row_bytes * (stop - start)
            content = _bytes(file, n_bytes, self._offset + self._row_bytes * start)
        except OSError as error:
            raise DataError(f"{self.path}: can no longer be read ({reason(error)}); {self._remedy}") from None
        if len(content) < n_bytes:
            raise DataError(f"{self.path}: was cut short while it was being read; {self._remedy}")
        rows = np.frombuffer(content, self.dtype)
        return rows if len(self.shape) == 1 else rows.reshape(stop - start, *self.shape[1:])

    def _check_changed(self, file: int, stamp: tuple[int, int]) -> None:
        """Remember another time of change. Raises DataError unless the content is known to be the same."""
        if stamp[0] != self._stamp[0]:
            raise DataError(
                f"{self.path}: has {stamp[0]:,} bytes instead of {self._stamp[0]:,} since it was opened; {self._remedy}"
            )
        digest = hashlib.sha256()
        for at in range(0, stamp[0], 1 << 24):
            digest.update(os.pread(file, 1 << 24, at))
        if digest.hexdigest() != self._sha256:
            raise DataError(f"{self.path}: was overwritten while it was being read; {self._remedy}")
        self._stamp = stamp

    def _file(self) -> int:
        """A descriptor of the file; of more files than a process may have open, those opened last stay open."""
        if (file := _open.get(self._key)) is not None:
            return file
        while _open and len(_open) >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2:
            os.close(_open.pop(next(iter(_open))))
        _open[self._key] = os.open(self._key, os.O_RDONLY | os.O_CLOEXEC)
        return _open[self._key]


def _stamp(file: int) -> tuple[int, int]:
    """(size, time of the last change) of an open file."""
    stat = os.fstat(file)
    return stat.st_size, stat.st_mtime_ns


def _bytes(file: int, n: int, at: int) -> bytes:
    """Bytes from `at` on: `n`, or fewer where the file ends. One call gives at most 2 GiB."""
    content = os.pread(file, n, at)
    while len(content) < n and (more := os.pread(file, n - len(content), at + len(content))):
        content += more
    return content
