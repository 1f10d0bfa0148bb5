"""Errors that are told to a user in one line, without a traceback."""


class TrainingError(RuntimeError):
    """A run that cannot go on: says why and what to do."""
