"""Errors that a user sees as one line, without a traceback."""

from conf.errors import UserError


class TrainingError(UserError, RuntimeError):
    """A run that cannot go on: says why and what to do."""

    exit_status = 1
