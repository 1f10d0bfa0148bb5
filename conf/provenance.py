"""What a result must state to be checked: the commit and the machine."""

import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from conf.machine import said_of_cpu

ROOT = Path(__file__).parent.parent
CODE = ("conf", "data", "models", "train", "eval")
"""The folders whose files make up the code; notes, results and pages beside them change no number."""
COPIED = (*CODE, "slurm")
"""The folders of a copy of the code from which a run can be done."""
REVISION = "REVISION"
"""File of a snapshot of the code: the revision that it was made from."""


def code_revision(root: Path = ROOT) -> str:
    """The commit of this code, with "+changes" when files of CODE differ from it; "unknown" outside a git checkout.

    A new file in one of those folders is a change, because it may be a module or a configuration in use. A snapshot of
    the code (train.snapshot) says itself what it was made from.
    """
    if (root / REVISION).is_file():
        return (root / REVISION).read_text().strip()
    try:
        commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=root, text=True, stderr=subprocess.DEVNULL)
        changes = subprocess.check_output(["git", "status", "--porcelain", "--", *CODE], cwd=root, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.strip() + ("+changes" if changes.strip() else "")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The machine and the code that a measurement was made with. Result files have the fields under their names."""

    hardware: str
    """Name of the GPU, or of the CPU."""
    threads: int | str
    """CPU threads; `auto` or several numbers where they were chosen anew in between."""
    dtype: str
    torch: str
    """Version of torch."""
    commit: str

    def __str__(self) -> str:
        return f"{self.hardware}, {self.threads} threads, {self.dtype}, torch {self.torch}, commit {self.commit[:12]}"


def processor() -> str:
    """The CPU's name."""
    named = said_of_cpu("model name")
    return named[0].partition(":")[2].strip() if named else platform.processor() or platform.machine()
