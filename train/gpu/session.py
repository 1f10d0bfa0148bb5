"""Steps carried out within a time, and a record of them that a later start goes on with."""

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from conf.output import writable
from conf.progress import progress
from conf.provenance import ROOT, code_revision
from conf.strict import ConfigError
from data.files import write_whole
from train.cost.device import usable
from train.gpu.config import AcceptanceConfig, Sizes
from train.gpu.page import page
from train.gpu.steps import PROMPTS, RANDOM_MODEL, SMALL_RUN, Step, steps

LEAST = 5.0
"""Seconds that a step must have left to be begun."""


class Session:
    """One start of train.acceptance."""

    def __init__(self, config: AcceptanceConfig) -> None:
        """Raises ConfigError for a GPU that is not here, and for an output that another device's numbers lie in."""
        self.config, self.device = config, usable(config.device, "device")
        sizes = config.sizes
        if sizes is Sizes.auto:
            sizes = Sizes.full if self.device == "cuda" else Sizes.tiny
        self.output = writable(config.output)
        self.folder = Path(config.folder).absolute() / f"{self.device}-{sizes}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.steps = steps(self.device, sizes, self.folder, config.checkpoint, _n_gpus())
        conditions = {"device": self.device, "sizes": sizes.value, "checkpoint": config.checkpoint}
        conditions["commit"] = code_revision()
        self.record = self._earlier(conditions) or {"conditions": conditions, "steps": {}}
        self.failed: list[str] = []

    def carry_out(self) -> None:
        """Run what is missing; the page is written after each step, so that it is there whatever happens."""
        lines = [json.dumps({"prompt": text, "id": str(i)}) for i, text in enumerate(PROMPTS)]
        (self.folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")
        done: dict[str, Any] = self.record["steps"]
        missing = [step for step in self.steps if done.get(step.name, {}).get("status") != "done"]
        if any(str(self.folder / RANDOM_MODEL) in " ".join(step.words) for step in missing):
            if not (self.folder / RANDOM_MODEL).exists():
                done.pop(RANDOM_MODEL, None)  # removed, or of another machine
            missing = [step for step in self.steps if step in missing or step.name not in done]
        end = time.monotonic() + 60 * self.config.minutes
        with progress("acceptance", unit="step", total=len(missing)) as bar:
            for i, step in enumerate(missing):
                left = end - time.monotonic()
                limit = left * step.share / sum(later.share for later in missing[i:])
                done[step.name] = run(step, limit, self.folder)
                self._write()
                bar.update()
        self._write()
        self.failed = [step.name for step in self.steps if done[step.name]["status"] != "done"]
        if not self.failed:
            shutil.rmtree(self.folder / RANDOM_MODEL, ignore_errors=True)

    def _write(self) -> None:
        write_whole(self.output.with_suffix(".json"), json.dumps(self.record, indent=1).encode())
        write_whole(self.output, page(self.record).encode())

    def _earlier(self, conditions: dict[str, Any]) -> dict[str, Any] | None:
        """What an earlier start of the same has left, unless all is to be measured anew."""
        file = self.output.with_suffix(".json")
        try:
            found: dict[str, Any] = json.loads(file.read_text())
            theirs = found["conditions"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if theirs["device"] == "cuda" != self.device:
            raise ConfigError(f"output={self.output}: holds numbers of a GPU; choose another for those of a CPU")
        if self.config.fresh or theirs != conditions:
            return None
        return found


def run(step: Step, limit: float, folder: Path) -> dict[str, Any]:
    """Run a step for so many seconds at most; what became of it, with its result.

    Its processes are a group of their own, which is ended with it, also when this process is interrupted.
    """
    if limit < LEAST:
        return {"status": "no time", "seconds": 0.0, "why": "no time was left for it"}
    if step.name == SMALL_RUN:
        shutil.rmtree(folder / SMALL_RUN, ignore_errors=True)  # of a start that was ended in it
    step.result.unlink(missing_ok=True)
    log, begun = folder / f"{step.name}.log", time.monotonic()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            step.words, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, process_group=0
        )
        try:
            status: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
    found: dict[str, Any] = {"status": "done", "seconds": round(time.monotonic() - begun, 1)}
    if status is None:
        return found | {"status": "too long", "why": f"ended after its {limit:.0f} s; {_last_line(log)}"}
    if status != 0 or not step.result.exists():
        return found | {"status": "failed", "why": f"exit status {status}: {_last_line(log)}"}
    text = step.result.read_text()
    lines = step.result.suffix == ".jsonl"
    return found | {"result": [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a process group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(log: Path) -> str:
    """What a process has said last, its error if it has told one."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["it has said nothing"])[-1][:300]


def _n_gpus() -> int:
    import torch

    return max(1, torch.cuda.device_count())
