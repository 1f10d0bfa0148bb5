"""Runs to which faults happen: started as a user starts them, watched by their metrics, and started again."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from training import rows

from conf.metrics_file import read_metrics
from train import run_dir

ROOT = Path(__file__).parent.parent
STEPS, EVERY = 160, 10
# Makes a step wrong in one rank, once: the environment names the rank, the step and how.
PLUGIN = """
import json, os, pathlib
import torch

STEP = [0]
FAULT = json.loads(os.environ.get("FAULT", "null"))


def exits(step, n_layers, total_steps):
    STEP[0] = step
    return [step % 2, n_layers - 1]


def wrong(module, inputs, output):
    if STEP[0] != FAULT["step"] or os.environ.get("RANK", "0") != FAULT["rank"] or not module.training:
        return None
    if FAULT["kind"] == "nan" and isinstance(module, torch.nn.Embedding):
        return output * float("nan")
    if FAULT["kind"] == "spike" and isinstance(module, torch.nn.RMSNorm):
        return output * 30
    return None


if FAULT:
    torch.nn.modules.module.register_module_forward_hook(wrong)
"""


@dataclass
class Bench:
    """Where the runs are, and how they are started."""

    folder: Path
    rng: random.Random
    options: list[str] = field(default_factory=list)
    whole: dict[str, list[dict]] = field(default_factory=dict)

    def command(self, run: Path, ranks: int, *more: str) -> list[str]:
        """A user's command for so many ranks."""
        launcher = [sys.executable, "-m"]
        if ranks > 1:
            launcher += ["torch.distributed.run", "--nproc-per-node", str(ranks), "-m"]
        return [*launcher, "train.pretrain", *self.options, *more, f"run_dir={run}"]

    def start(
        self, run: Path, ranks: int = 2, *more: str, before: list[str] | None = None, **environment: str
    ) -> "Job":
        """Start it, in a session of its own."""
        log = (run.parent / f"{run.name}.log").open("ab")
        search = os.pathsep.join([str(self.folder), os.environ.get("PYTHONPATH", "")])
        env = os.environ | {"PYTHONPATH": search, "OMP_NUM_THREADS": "1"} | environment
        command = [*(before or []), *self.command(run, ranks, *more)]
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)
        return Job(run, process)

    def reference(self, ranks: int) -> list[dict]:
        """The metrics of a run that is left alone."""
        if str(ranks) not in self.whole:
            job = self.start(self.folder / f"whole-{ranks}", ranks)
            assert job.wait() == 0, job.tail()
            self.whole[str(ranks)] = rows(job.run)
        return self.whole[str(ranks)]

    def recover(self, run: Path, ranks: int = 2, *more: str, since: float | None = None) -> tuple[float, str]:
        """Repeat the command to the end; seconds from `since` until it trains again, and whether all is as it was."""
        at, since = last_step(run), time.monotonic() if since is None else since
        committed = run_dir.last_checkpoint(run)
        job = self.start(run, ranks, *more)
        while last_step(run) <= min(at, committed) and job.alive():
            time.sleep(0.05)
        while job.alive() and last_step(run) == at and at > committed:
            time.sleep(0.02)  # the metrics have not been cut back yet
        seconds = time.monotonic() - since
        assert job.wait() == 0, job.tail()
        return seconds, self.compared(run, ranks)

    def compared(self, run: Path, ranks: int) -> str:
        """How the metrics of a finished run compare with one that was left alone."""
        ours, theirs = rows(run), self.reference(ranks)
        if ours == theirs:
            return "yes"
        key = "train/objective"
        losses = {r["step"]: r[key] for r in theirs if key in r}
        apart = [abs(r[key] - losses[r["step"]]) for r in ours if key in r]
        return f"no: losses differ by {max(apart):.1e} at most"


@dataclass
class Job:
    """A command that runs."""

    run: Path
    process: subprocess.Popen

    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def wait(self, seconds: float = 300) -> int:
        """Its exit status."""
        return self.process.wait(seconds)

    def tail(self) -> str:
        """The end of what it has printed."""
        return (self.run.parent / f"{self.run.name}.log").read_text(errors="replace")[-3000:]

    def said(self, *words: str) -> str:
        """The last line with one of the words in what it has printed."""
        text = (self.run.parent / f"{self.run.name}.log").read_text(errors="replace")
        lines = [line.strip() for line in text.split("\n") if any(word in line for word in words)]
        return lines[-1][:260] if lines else ""

    def ranks(self) -> list[int]:
        """Processes of the ranks, torchrun's children."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"train.pretrain" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def until(self, step: int) -> None:
        """Wait until a step is in the metrics."""
        while last_step(self.run) < step:
            assert self.alive(), self.tail()
            time.sleep(0.02)

    def kill(self) -> None:
        """All of its processes."""
        for pid in [self.process.pid, *self.ranks()]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self.wait()


def last_step(run: Path) -> int:
    """The last step in the metrics."""
    path = run / "metrics.jsonl"
    return max((r["step"] for r in read_metrics(path)), default=0) if path.exists() else 0


def newest(run: Path) -> Path:
    """The largest file of the newest checkpoint."""
    folder = run / "checkpoint" / f"step-{run_dir.last_checkpoint(run)}"
    return max(folder.glob("*.distcp"), key=lambda f: f.stat().st_size)
