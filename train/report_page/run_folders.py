"""Which run folders a user has named, what each is called on the page, and where the page goes."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from conf.metrics_file import METRICS
from conf.strict import ConfigError
from train.report_page.config import ReportConfig
from train.run_dir import CONFIG


def run_folders(config: ReportConfig) -> list[Path]:
    """The folders, in the order of the command, each once. Raises ConfigError for one that holds no run."""
    if config.run_dir:
        return [_checked(Path(config.run_dir).expanduser(), f"run_dir={config.run_dir}")]
    found: list[Path] = []
    for pattern in config.runs:
        folder = Path(pattern).expanduser()
        if folder.exists() or not glob.has_magic(pattern):
            matches = [_checked(folder, f"runs: {pattern}")]
        else:
            matches = [Path(name) for name in sorted(glob.glob(str(folder)))]
            matches = [folder for folder in matches if holds_run(folder)]
            if not matches:
                raise ConfigError(f"runs: {pattern}: no run folder has such a name")
        found += [folder for folder in matches if folder not in found]
    return found


def holds_run(folder: Path) -> bool:
    """Whether training has begun here."""
    return (folder / CONFIG).is_file() or (folder / METRICS).is_file()


def _checked(folder: Path, said: str) -> Path:
    if holds_run(folder):
        return folder
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "is not there"
    else:
        inside = [child.name for child in sorted(folder.iterdir()) if child.is_dir() and holds_run(child)]
        what = f"holds no run ({CONFIG} and {METRICS} are missing)"
        if inside:
            raise ConfigError(f"{said}: {what}, but {inside[0]}/ in it does; 'runs=[{folder}/*]' shows all of them")
    raise ConfigError(f"{said}: {what}; give the run_dir of a training run")


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
