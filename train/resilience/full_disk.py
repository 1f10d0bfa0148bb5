"""Whether a write has failed for want of space, and what to say then."""

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

NO_SPACE = {errno.ENOSPC: "no space left on device", errno.EDQUOT: "disk quota exceeded", errno.EFBIG: "file too large"}
"""Error numbers of a full disk, a used-up quota and a file beyond the limit (`ulimit -f`)."""


def no_space(error: BaseException, folder: Path, needed: int = 0) -> str | None:
    """What is full, if that is why writing to `folder` failed.

    Args:
        error: also one of torch's, which keeps the errors of all ranks; its writer of tensors hides the system's error
            behind one about a position in the file.
        folder: that was written to; may not exist any more.
        needed: bytes that were still to be written.
    """
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in NO_SPACE:
            return NO_SPACE[cause.errno]
    while not folder.exists():
        folder = folder.parent
    return NO_SPACE[errno.ENOSPC] if shutil.disk_usage(folder).free < needed else None


def in_words(n_bytes: int) -> str:
    """A size for people: 84.3 GiB, or in MiB where that is more readable."""
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.1f} MiB"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        for rank_error, _ in getattr(error, "failures", {}).values():
            yield from _causes(rank_error)
        error = error.__cause__ or error.__context__
