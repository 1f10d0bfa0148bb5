"""Errors that end a command: one line for the user, no traceback, and an exit status."""

from typing import ClassVar


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
