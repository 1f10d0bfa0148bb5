"""Errors that are told to a user in one line, without a traceback."""

from conf.errors import UserError


class TrainingError(UserError, RuntimeError):
    """A run that cannot go on: says why and what to do."""

    exit_status = 1
