"""From what a user names to the folders of training runs that are meant."""

import glob
from collections.abc import Sequence
from pathlib import Path

from conf.metrics_file import METRICS
from conf.strict import ConfigError

CONFIG = "config.yaml"
"""The resolved configuration of a run, in its folder."""
CORPUS = "corpus.json"
"""What its text was: counts, and digests of what was read."""
TOKEN_COUNTS = "token_counts.npy"
"""How often each token of the vocabulary occurs in the beginning of that text, in a run's folder and in its exports."""
DEPTH = 3
"""Levels below a folder in which runs are looked for; those of --multirun lie on the first."""


def run_folders(named: Sequence[str], key: str) -> list[Path]:
    """The run folders among folders, folders of runs, and globs of either, each once, in the order of their names.

    Args:
        named: what the user has written.
        key: the user's key, for messages.

    Raises ConfigError for what names no run.
    """
    folders: dict[Path, None] = {}
    for name in named:
        found = [folder for path in matches(name, key) for folder in runs_in(path)]
        if not found:
            raise ConfigError(f"{key}: {name} holds no run (a folder with {CONFIG})")
        folders |= dict.fromkeys(folder.resolve() for folder in found)
    return [_short(folder) for folder in folders]


def matches(name: str, key: str) -> list[Path]:
    """The files or folders of a name or glob. Raises ConfigError where there are none."""
    path = Path(name).expanduser()
    found = [path] if path.exists() else [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    if not found:
        raise ConfigError(f"{key}: {name} is nothing that exists")
    return found


def holds_run(folder: Path) -> bool:
    """Whether training has begun here; one of its files may be missing."""
    return (folder / CONFIG).is_file() or (folder / METRICS).is_file()


def runs_in(folder: Path, depth: int = DEPTH) -> list[Path]:
    """The folder itself, if it is a run's, else those of the runs in it, at most so many levels below."""
    if not folder.is_dir():
        return []
    if holds_run(folder):
        return [folder]
    below = sorted(folder.iterdir()) if depth else []
    return [found for path in below if not path.name.startswith(".") for found in runs_in(path, depth - 1)]


def _short(folder: Path) -> Path:
    """Beside the folder that the command runs in, as the user would write it."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
