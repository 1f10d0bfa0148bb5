"""Errors that are told to a user in one line, without a traceback."""


class ConfigError(ValueError):
    """A configuration that cannot run: names the key and what is allowed. Raised before anything starts."""


class TrainingError(RuntimeError):
    """A run that cannot go on: says why and what to do."""
