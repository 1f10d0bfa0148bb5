"""Errors that end a command: one line for the user, no traceback, and an exit status."""

from typing import ClassVar


class UserError(Exception):
    """Something that the user can mend: the message says what is wrong and what to do, in one line."""

    exit_status: ClassVar[int] = 2
    """What the command that it ends exits with; 2 is for bad input."""
