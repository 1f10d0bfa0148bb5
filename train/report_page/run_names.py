"""What runs are called on their page, and where it goes."""

import os
from collections.abc import Sequence
from pathlib import Path

from conf.run_folders import holds_run, run_folders, runs_in
from conf.strict import ConfigError
from train.report_page.config import ReportConfig


def folders_of(config: ReportConfig) -> list[Path]:
    """The run folders that are meant. Raises ConfigError for what names none."""
    if not config.run_dir:
        return run_folders(config.runs, "runs")
    folder = Path(config.run_dir).expanduser()
    if holds_run(folder):
        return [folder]
    if not folder.is_dir():
        raise ConfigError(f"run_dir={folder}: is no folder; give the run_dir of a training run")
    if runs_in(folder):
        raise ConfigError(f"run_dir={folder}: holds several runs; 'runs=[{folder}]' shows all of them")
    raise ConfigError(f"run_dir={folder}: holds no run; give the run_dir of a training run")


def names_of(folders: Sequence[Path]) -> list[str]:
    """Short names that tell the runs apart: the ends of their paths, as long as it takes."""
    parts = [folder.resolve().parts for folder in folders]
    for n in range(1, max(len(p) for p in parts) + 1):
        names = ["/".join(p[-n:]) for p in parts]
        if len(set(names)) == len(names):
            break
    return names


def default_output(folders: Sequence[Path]) -> Path:
    """report.html in the run's folder, or in the nearest one that holds all of the runs."""
    common = os.path.commonpath([os.path.abspath(folder) for folder in folders])
    relative = Path(os.path.relpath(common))
    return (Path(common) if relative.parts[:1] == ("..",) else relative) / "report.html"
