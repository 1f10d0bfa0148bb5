"""From what a user names to the runs that are meant."""

from collections.abc import Sequence

from conf.run_folders import run_folders
from eval.figure.run import Run


def find_runs(named: Sequence[str], key: str) -> list[Run]:
    """The runs of folders, of folders of runs, and of globs of either, each once, in the order of their names.

    Args:
        named: what the user has written.
        key: the user's key, for messages.

    Raises ConfigError for what names no run.
    """
    return [Run.read(folder) for folder in run_folders(named, key)]
