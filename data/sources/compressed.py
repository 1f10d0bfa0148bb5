"""Files as they are, gzip or zstd, read as bytes; one that was cut off is an error and not an early end."""

import gzip
import io
import zlib
from pathlib import Path
from typing import IO, Any

import zstandard

# What reading a damaged file raises: here, in gzip, and in pyarrow, whose errors are ValueErrors and OSErrors.
UNREADABLE = (OSError, EOFError, zlib.error, zstandard.ZstdError, ValueError)


def opened(path: Path, on_disc: IO[bytes] | None = None) -> IO[bytes]:
    """The contents of a file by its suffix. `on_disc`: the same file, already open."""
    raw = on_disc or path.open("rb")
    if path.suffix == ".gz":
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
    if path.suffix == ".zst":
        return io.BufferedReader(_Frames(raw), 1 << 18)
    return raw


class _Frames(io.RawIOBase):
    """The zstd frames of a file. The library's own reader takes a frame that was cut off for one that ends there."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._pending = b""
        self._frame: Any = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._pending:
            if self._frame is not None and self._frame.eof:
                left, self._frame = self._frame.unused_data, None
            else:
                left = b""
            left = left or self._raw.read(1 << 17)
            if not left:
                if self._frame is not None:
                    raise EOFError("the file ends in the middle of a zstd frame")
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            self._pending = self._frame.decompress(left)
        n = min(len(buffer), len(self._pending))
        buffer[:n], self._pending = self._pending[:n], self._pending[n:]
        return n
