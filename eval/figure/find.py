"""From what a user names to the folders and files that are meant."""

import glob
from collections.abc import Sequence
from pathlib import Path

from conf.strict import ConfigError
from eval.figure.run import CONFIG, Run

DEPTH = 3
"""Levels below a folder in which runs are looked for; those of --multirun lie on the first."""


def find_runs(named: Sequence[str], key: str) -> list[Run]:
    """The runs of folders, of folders of runs, and of globs of either, each once, in the order of their names.

    Args:
        named: what the user has written.
        key: the user's key, for messages.

    Raises ConfigError for what names no run.
    """
    folders: dict[Path, None] = {}
    for name in named:
        found = [folder for path in matches(name, key) for folder in _runs_in(path)]
        if not found:
            raise ConfigError(f"{key}: {name} holds no run (a folder with {CONFIG})")
        folders |= dict.fromkeys(folder.resolve() for folder in found)
    return [Run.read(_short(folder)) for folder in folders]


def matches(name: str, key: str) -> list[Path]:
    """The files or folders of a name or glob. Raises ConfigError where there are none."""
    path = Path(name).expanduser()
    found = [path] if path.exists() else [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    if not found:
        raise ConfigError(f"{key}: {name} is nothing that exists")
    return found


def _runs_in(folder: Path, depth: int = DEPTH) -> list[Path]:
    """The folder itself, if it is a run's, else those of the runs in it, at most so many levels below."""
    if not folder.is_dir():
        return []
    if (folder / CONFIG).is_file():
        return [folder]
    below = sorted(folder.iterdir()) if depth else []
    return [found for path in below if not path.name.startswith(".") for found in _runs_in(path, depth - 1)]


def _short(folder: Path) -> Path:
    """Beside the folder that the command runs in, as the user would write it."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
