"""Errors that end a command: one line for the user, no traceback, and an exit status."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

# The disk, or what a user may have of it.
FULL = (errno.ENOSPC, errno.EDQUOT)
# torch raises a RuntimeError where the processor's memory is at its end.
NO_MEMORY = re.compile(r"can't allocate memory|[Cc]annot allocate memory|not enough memory")


class UserError(Exception):
    """Something that the user can mend: the message says what is wrong and what to do, in one line."""

    exit_status: ClassVar[int] = 2
    """What the command that it ends exits with; 2 is for bad input."""


def reason(error: BaseException) -> str:
    """What a library's error says, in one line; without the file's name, which our messages begin with."""
    # torch's CheckpointException says of which ranks the errors are, and keeps the errors to itself.
    for rank_error, _ in getattr(error, "failures", {}).values():
        return reason(rank_error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip() or type(error).__name__).split("\n")[0]


def of_machine(error: BaseException) -> str | None:
    """One line for what the machine has refused: disk space, a file, memory; None for every other error."""
    if isinstance(error, OSError) and error.errno in FULL:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{reason(error)}; free some space there, and give the same command again"
    if isinstance(error, OSError) and error.errno and error.filename:
        return f"{error.filename}: {error.strerror}; see whether its folder is there and may be used"
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or NO_MEMORY.search(str(error)):
        return f"out of memory ({reason(error)}); take a smaller model, batch or sequence, or a larger machine"
    return None


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Errors of writing to an open file, which do not say where, get the file's name."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from None
