"""Errors that a user sees as one line, without a traceback."""

from conf.errors import UserError

PREEMPTED = 75
"""Exit status of a run that can go on with the same command, and has not failed: EX_TEMPFAIL of sysexits.h."""


class TrainingError(UserError, RuntimeError):
    """A run that cannot go on: says why and what to do."""

    exit_status = 1


class LostRankError(TrainingError):
    """Another rank has died or does not come to where this one waits; the same command may go on."""

    exit_status = PREEMPTED
