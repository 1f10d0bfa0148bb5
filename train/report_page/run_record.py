"""What a run folder tells while the run goes on or after it. Every file may be missing, damaged or half written."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from conf.errors import reason
from conf.metrics_file import METRICS
from conf.run_folders import CONFIG
from models.storage.checkpoints import complete_checkpoints
from train.errors import PREEMPTED
from train.report_page.growing_log import GrowingLog, Metrics
from train.run_dir import BAD_STEPS, EXIT_STATUS, LOCK, STARTS


@dataclass(frozen=True)
class Event:
    """Something that happened to a run besides its steps."""

    step: int
    kind: str
    """start, restart, skipped or checkpoint."""
    what: str
    """One line for a reader."""
    time: str = ""
    """When, if it is known."""


class RunRecord:
    """A run folder, read anew by `read`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.metrics = Metrics(folder / METRICS)
        self.starts: list[dict[str, Any]] = []
        self.skipped: list[dict[str, Any]] = []
        self._starts = GrowingLog(folder / STARTS, self.starts.append, self.starts.clear, "from_step")
        self._skipped = GrowingLog(folder / BAD_STEPS, self.skipped.append, self.skipped.clear, "step")
        self.config: dict[str, Any] = {}
        self.notes: list[str] = []
        """What a reader must know about what is missing."""
        self.checkpoints: list[int] = []
        self.exit_status: int | None = None

    def read(self) -> None:
        """Take in what is in the folder now."""
        self.notes = []
        for log in (self.metrics.log, self._starts, self._skipped):
            self._read_log(log)
        self.config = self._read_config()
        self.checkpoints = self._read_checkpoints()
        status = _text(self.folder / EXIT_STATUS)
        self.exit_status = int(status) if status.isdecimal() else None
        if not self.metrics.series:
            self.notes.append(f"{METRICS}: has no rows yet")
        elif not any(key.startswith("val/") for key in self.metrics.series):
            self.notes.append("no validation yet; the first one comes after validation.every steps")

    @property
    def total_steps(self) -> int | None:
        """T, the steps of the whole run."""
        steps = self.section("train").get("steps")
        return steps if isinstance(steps, int) else None

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end."""
        return self.exit_status == 0

    @property
    def state(self) -> str:
        """How the run stands, in a few words."""
        if self.exit_status is not None:
            ended = {0: "finished", PREEMPTED: "stopped, can continue"}
            return ended.get(self.exit_status, f"error, exit status {self.exit_status}")
        holder = _text(self.folder / LOCK)
        pid, _, host = holder.removeprefix("pid ").partition(" on ")
        if not holder or (host == socket.gethostname() and pid.isdecimal() and not _is_alive(int(pid))):
            return "killed" if self.starts else "not known"
        return f"running ({holder})"

    @property
    def last_written(self) -> float | None:
        """When the last row of metrics was written, in seconds since 1970."""
        try:
            return (self.folder / METRICS).stat().st_mtime
        except OSError:
            return None

    def section(self, name: str) -> dict[str, Any]:
        """A section of the configuration; empty if it is not there."""
        found = self.config.get(name)
        return found if isinstance(found, dict) else {}

    def events(self) -> list[Event]:
        """In the order of their steps."""
        found = [_start(i, row) for i, row in enumerate(self.starts)]
        found += [Event(row["step"], "skipped", f"update skipped: {row.get('why', '?')}") for row in self.skipped]
        found += [Event(step, "checkpoint", "checkpoint, kept") for step in self.checkpoints]
        return sorted(found, key=lambda event: event.step)

    def _read_log(self, log: GrowingLog) -> None:
        try:
            log.read()
        except OSError as error:
            self.notes.append(f"{log.path.name}: cannot be read ({reason(error)})")
        if log.damaged:
            self.notes.append(f"{log.path.name}: {log.damaged} damaged lines are left out")

    def _read_config(self) -> dict[str, Any]:
        try:
            found = yaml.safe_load((self.folder / CONFIG).read_text())
        except FileNotFoundError:
            self.notes.append(f"{CONFIG}: missing; schedules and the length of the run are not known")
            return {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            self.notes.append(f"{CONFIG}: cannot be read ({reason(error)})")
            return {}
        if not isinstance(found, dict):
            self.notes.append(f"{CONFIG}: damaged (no table of keys)")
            return {}
        return found

    def _read_checkpoints(self) -> list[int]:
        try:
            return sorted(complete_checkpoints(self.folder))
        except OSError:  # one of them has been deleted meanwhile; the next reading will see it
            return self.checkpoints


def _start(i: int, row: dict[str, Any]) -> Event:
    where = f"{row.get('ranks', '?')} ranks on {row.get('host', '?')}, code {str(row.get('revision', '?'))[:12]}"
    what = f"continued from step {row['from_step']:,}" if i else "started"
    return Event(row["from_step"], "restart" if i else "start", f"{what}: {where}", str(row.get("time", "")))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True
