"""kill -9 at random moments, from the outside: the same command continues, and the result is that of one piece."""

import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training import rows

ROOT = Path(__file__).parent.parent
RECIPE = [
    "early_exit=rotational",
    "early_exit.rotation_period=2",
    "layer_dropout=exp_scratch",
    "train.steps=100",
    "checkpoint.every=7",
    "validation.every=20",
]
LAUNCHERS = {
    "python": [sys.executable, "-m"],
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"],
}


def start(launcher: str, folder: Path, overrides: list[str]) -> subprocess.Popen[bytes]:
    command = [*LAUNCHERS[launcher], "train.pretrain", *overrides, *RECIPE, f"run_dir={folder}"]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def finish(launcher: str, folder: Path, overrides: list[str]) -> None:
    _, errors = (process := start(launcher, folder, overrides)).communicate()
    assert process.returncode == 0, errors.decode()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_killed_at_random_moments(launcher: str, tmp_path: Path, tiny_run: list[str]) -> None:
    tiny_run = [o for o in tiny_run if not o.startswith("wandb")] if launcher == "python" else tiny_run
    finish(launcher, tmp_path / "whole", tiny_run)
    seed = time.time_ns()
    rng = random.Random(seed)
    kills = 0
    for _ in range(4):
        process = start(launcher, tmp_path / "killed", tiny_run)
        metrics = tmp_path / "killed" / "metrics.jsonl"
        before = metrics.stat().st_size if metrics.exists() else 0
        deadline = time.monotonic() + 60
        while (not metrics.exists() or metrics.stat().st_size <= before) and time.monotonic() < deadline:
            if process.poll() is not None:
                break
            time.sleep(0.05)
        time.sleep(rng.uniform(0.0, 1.5))
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # a fast machine was done before
            assert process.wait() == 0, process.stderr and process.stderr.read().decode()
            break
        process.wait()
        kills += 1
    assert kills, "nothing was killed"
    finish(launcher, tmp_path / "killed", tiny_run)
    assert rows(tmp_path / "whole") == rows(tmp_path / "killed"), f"seed {seed}"
    finish(launcher, tmp_path / "killed", tiny_run)  # a finished run is left alone
    assert rows(tmp_path / "whole") == rows(tmp_path / "killed")


RANK = "import train.cluster.launcher as t, time; t.die_with_launcher(); print(flush=True); time.sleep(60)"
LATE = "print(flush=True); import time; time.sleep(1); " + RANK
LAUNCHER = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], start_new_session=True)"


@pytest.mark.parametrize(("torchrun", "rank"), [(True, RANK), (False, RANK), (True, LATE)])
def test_a_rank_dies_with_its_torchrun(torchrun: bool, rank: str) -> None:
    """Also with one that has died before the rank could ask to be killed with it."""
    environment = os.environ | ({"TORCHELASTIC_RUN_ID": "1"} if torchrun else {})
    command = [sys.executable, "-c", LAUNCHER, rank]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == b"\n"  # the rank is there
        [pid] = map(int, Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split())
        launcher.kill()
        launcher.wait()
        # Its end of the pipe closes with it.
        ended = bool(select.select([launcher.stdout], [], [], 5 if torchrun else 1)[0])
        if not ended:
            os.kill(pid, signal.SIGKILL)
    assert ended == torchrun
