"""Signals: all ranks stop after the same step with a checkpoint, and the same command continues bitwise."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import run_ranks
from training import rows, train

from train import run_dir
from train.errors import PREEMPTED, TrainingError
from train.trainer import LayerSkipTrainer

ROOT = Path(__file__).parent.parent
OPTIONS = ["train.steps=8", "checkpoint.every=100", "validation.every=100", "train.log_every=3"]
OPTIONS += ["early_exit=rotational", "early_exit.rotation_period=2", "layer_dropout=exp_scratch"]


def preempted_and_continued(rank: int, tmp: Path, overrides: list[str]) -> None:
    def signalled_in_step_4(trainer: LayerSkipTrainer) -> None:
        trainer.preemption.listen()
        trainer.preemption.training = True
        step = trainer.forward_backward_step

        def forward_backward_step(**rest: Any) -> Any:
            if trainer.step == 4 and rank == int(os.environ["WORLD_SIZE"]) - 1:
                for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
                    os.kill(os.getpid(), number)
            return step(**rest)

        trainer.forward_backward_step = forward_backward_step  # type: ignore[method-assign]

    train(rank, tmp / "whole", [*overrides, *OPTIONS])
    # Rank 1 alone is told, in the middle of step 4, while rank 0 may be in step 5 already: 5 is the last for both.
    stopped = train(rank, tmp / "parts", [*overrides, *OPTIONS], change=signalled_in_step_4)
    stopped.preemption.end()
    assert stopped.step == run_dir.last_checkpoint(tmp / "parts") == 5
    train(rank, tmp / "parts", [*overrides, *OPTIONS])


@pytest.mark.parametrize("world_size", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_signal_ends_all_ranks_after_the_same_step(world_size: int, tmp_path: Path, tiny_run: list[str]) -> None:
    run_ranks(preempted_and_continued, world_size, tmp_path, tiny_run)
    whole, parts = rows(tmp_path / "whole"), rows(tmp_path / "parts")
    assert [r["step"] for r in parts] == [1, 3, 5, 6, 8, 8]
    assert [r for r in parts if r["step"] in (1, 3, 8)][-1] == whole[-1]
    exact = {r["step"]: r["train/objective"] for r in whole if "train/objective" in r}
    assert {r["step"]: r["train/objective"] for r in parts if r["step"] in exact and "train/objective" in r} == exact


def test_the_command_saves_and_says_how_it_ended(tmp_path: Path, tiny_run: list[str]) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "train.pretrain", *tiny_run, "train.steps=100000", f"run_dir={folder}"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not (folder / "metrics.jsonl").exists() or not (folder / "metrics.jsonl").stat().st_size:
        time.sleep(0.1)
        assert process.poll() is None
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == PREEMPTED
    step = run_dir.last_checkpoint(folder)
    assert re.search(rf"SIGTERM \d+\.\d s ago: saved at step {step} of 100000; the same command continues", errors)
    assert (folder / "exit_status").read_text() == f"{PREEMPTED}\n"


LATE = """
import os, signal, time
from train.cluster.preemption import Preemption
preemption = Preemption(save_seconds=0.2)
preemption.listen()
preemption.training = True
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
"""


def test_the_process_ends_at_the_deadline() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.returncode == PREEMPTED
    assert done.stderr == "SIGTERM: no checkpoint within cluster.save_seconds=0.2; the last one counts\n"


def starts(rank: int, folder: Path) -> None:
    from train.cluster.rank_0_first import rank_0_first

    def work() -> int:
        time.sleep(0.3)
        (folder / "config.yaml").touch(exist_ok=False)
        return 40

    assert rank_0_first(work, rank, 3) == 40
    assert (folder / "config.yaml").exists()


def fails(rank: int, folder: Path) -> None:
    from train.cluster.rank_0_first import rank_0_first

    def work() -> int:
        raise ValueError("nothing is right")

    with pytest.raises(ValueError if rank == 0 else TrainingError, match="right" if rank == 0 else "rank 0"):
        rank_0_first(work, rank, 2)


def test_rank_0_is_done_before_another_rank_looks(tmp_path: Path) -> None:
    run_ranks(starts, 3, tmp_path)
    run_ranks(fails, 2, tmp_path)
