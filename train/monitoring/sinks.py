"""Where metrics go besides the console: metrics.jsonl in the run folder, W&B, TensorBoard."""

import json
import logging
import os
import re
import sys
import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from conf.errors import reason
from train.config import PretrainConfig, WandbMode
from train.errors import PREEMPTED
from train.monitoring.tensorboard import TensorboardSink
from train.resilience.line_file import LineFile
from train.run_dir import last_checkpoint

logger = logging.getLogger(__name__)


class JsonlSink:
    """One JSON object per line, written through at once; on a full disk, when there is space again."""

    def __init__(self, path: Path) -> None:
        self._lines = LineFile(path)

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Append a row."""
        self._lines.write(json.dumps({"step": step, **metrics}))

    def close(self, exit_status: int) -> None:
        """Close the file."""
        self._lines.close()


class WandbSink:
    """A W&B run whose id lies in the run folder, so that a continued run continues it.

    W&B's process ends with SIGTERM, which Slurm sends to all processes of a job. What it has not taken lies in
    wandb_missed.jsonl until the run goes on.
    """

    def __init__(self, config: PretrainConfig) -> None:
        import wandb  # slow to import, and not needed in every run

        folder = Path(config.run_dir)
        id_file = folder / "wandb_id"
        if not id_file.exists():
            id_file.write_text(uuid.uuid4().hex[:8])
        self._run = wandb.init(
            mode=config.wandb.mode.value,
            project=config.wandb.project,
            entity=config.wandb.entity,
            name=folder.name,
            id=id_file.read_text().strip(),
            resume="allow",
            dir=str(folder),
            config=asdict(config),
            settings=wandb.Settings(silent=config.wandb.mode is not WandbMode.online),
        )
        self._processes = _children("wandb-core")
        self._broken = False
        self._missed = folder / "wandb_missed.jsonl"
        if self._missed.exists():
            for line in self._missed.read_text().splitlines():
                row = json.loads(line)
                self._try(partial(self._run.log, row, step=row.pop("step")))
            self._missed.unlink()
        self._later = LineFile(self._missed)

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Log a row at a step. What W&B cannot take is a warning, and kept for the next start."""
        self._try(lambda: self._run.log(metrics, step=step))
        if self._broken:
            self._later.write(json.dumps({"step": step, **metrics}))

    def close(self, exit_status: int) -> None:
        """Finish the run: W&B calls it finished for 0, preempted for PREEMPTED, and else failed."""

        def finish() -> None:
            if exit_status == PREEMPTED:
                self._run.mark_preempting()
            self._run.finish(exit_code=exit_status)

        def attempt() -> None:
            self._try(finish)

        # Without its process W&B would wait for ever.
        ending = threading.Thread(target=attempt, daemon=True)
        ending.start()
        while ending.is_alive() and not self._is_gone():
            ending.join(0.2)

    def _is_gone(self) -> bool:
        return any(_state(pid) in "ZX" for pid in self._processes)

    def _try(self, action: Callable[[], object]) -> None:
        try:
            if not self._broken and self._is_gone():
                raise ChildProcessError("its process has ended")
            if not self._broken:
                action()
        except Exception as error:  # wandb has no list of what it raises
            self._broken = True
            sys.unraisablehook = lambda _: None  # what W&B does at exit fails as well
            logger.warning("W&B: %s; the rows from here on follow when the run goes on", reason(error))


def _children(name: str) -> list[int]:
    """Ids of this process's children that bear a name; none where there is no /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            comm, parent = re.fullmatch(r"\d+ \((.*)\) \w (\d+) .*", stat.read_text().strip()).groups()  # type: ignore[union-attr]
        except (OSError, AttributeError):  # it has ended
            continue
        if (comm, int(parent)) == (name, os.getpid()):
            found.append(int(stat.parent.name))
    return found


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "X"


Sink = JsonlSink | WandbSink | TensorboardSink


def open_sinks(config: PretrainConfig) -> list[Sink]:
    """The sinks of a run. For rank 0 alone."""
    sinks: list[Sink] = [JsonlSink(Path(config.run_dir, "metrics.jsonl"))]
    if config.wandb.mode is not WandbMode.disabled:
        sinks.append(WandbSink(config))
    if config.tensorboard:
        sinks.append(TensorboardSink(config.run_dir, last_checkpoint(config.run_dir)))
    return sinks


def wandb_login_missing(config: PretrainConfig) -> bool:
    """Whether W&B is asked to be online without a login, which would wait for an answer at the keyboard."""
    if config.wandb.mode is not WandbMode.online:
        return False
    import wandb

    return not wandb.login(prompt=False)
