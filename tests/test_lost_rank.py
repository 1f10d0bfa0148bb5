"""Ranks that stop, die or lose their helpers: named in one line, and the run continues bitwise."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_wandb import files, histories
from training import rows

from conf.metrics_file import read_metrics
from train import run_dir
from train.errors import PREEMPTED

ROOT = Path(__file__).parent.parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--shutdown-timeout", "2"]


def start(launcher: list[str], *options: str) -> subprocess.Popen[str]:
    command = [*launcher, "-m", "train.pretrain", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    path = folder / "metrics.jsonl"
    while not path.exists() or not any(row["step"] >= step for row in read_metrics(path)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    found = [
        int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()
    ]
    return [*found, *(grandchild for child in found for grandchild in children(child))]


def rank_1(torchrun: int) -> int:
    ranks = children(torchrun)
    return next(pid for pid in ranks if b"RANK=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))


@pytest.mark.slow
def test_a_stopped_rank_is_named(tmp_path: Path, tiny_run: list[str]) -> None:
    folder = tmp_path / "run"
    options = [*tiny_run, "train.steps=100000", "cluster.timeout_seconds=4", f"run_dir={folder}"]
    process = start(TORCHRUN, *options)
    wait_for_step(folder, 5, process)
    stopped = rank_1(process.pid)
    os.kill(stopped, signal.SIGSTOP)
    _, errors = process.communicate(timeout=240)
    assert re.search(
        rf"error: rank 1 \(process {stopped} on \S+, step \d+\) has shown no sign of life for"
        r" cluster\.timeout_seconds=4; rank 0 is in step \d+, its last collective gloo:\w+ number \d+ of group",
        errors,
    )
    assert (folder / "exit_status").read_text() == f"{PREEMPTED}\n"


@pytest.mark.slow
def test_a_killed_rank_ends_the_run_and_the_same_command_continues(tmp_path: Path, tiny_run: list[str]) -> None:
    options = [*tiny_run, "train.steps=40", "checkpoint.every=5"]
    for name in ("whole", "killed", "killed"):
        folder = tmp_path / name
        process = start(TORCHRUN, *options, f"run_dir={folder}")
        killed = name == "killed" and not folder.exists()
        if killed:
            wait_for_step(folder, 7, process)
            os.kill(rank_1(process.pid), signal.SIGKILL)
        _, errors = process.communicate(timeout=240)
        assert process.returncode == int(killed), errors
        assert (folder / "exit_status").read_text() == (f"{PREEMPTED}\n" if killed else "0\n")
    assert len((tmp_path / "killed" / "starts.jsonl").read_text().splitlines()) == 2
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")


@pytest.mark.slow
def test_a_signal_to_all_processes_of_a_run(tmp_path: Path, tiny_run: list[str]) -> None:
    """As Slurm sends it: to processes that read data as well, and to that of W&B, which ends at once."""
    folder = tmp_path / "run"
    options = [*tiny_run, "wandb.mode=offline", "data.num_workers=2", f"run_dir={folder}"]
    process = start([sys.executable], *options, "train.steps=100000")
    wait_for_step(folder, 5, process)
    for pid in [process.pid, *children(process.pid)]:
        os.kill(pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == PREEMPTED, errors
    assert "Traceback" not in errors.replace('Traceback (most recent call last):\n  File "<frozen', "")
    step = run_dir.last_checkpoint(folder)
    assert step > 5
    [begun] = files(folder)
    # It writes 32 KiB at a time, so there may be none.
    assert max((row["step"] for row in histories(begun)), default=0) <= step
    done = start([sys.executable], *options, f"train.steps={step + 1}")
    _, errors = done.communicate(timeout=240)
    assert done.returncode == 0, errors
    logged = {row["step"] for path in files(folder) for row in histories(path)}
    assert logged == set(range(1, step + 2)), "what W&B had not taken has followed"
