"""slurm/ on a real Slurm of two nodes: a job is preempted twice, and ends by itself with the losses of one piece."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from training import rows

from conf.metrics_file import read_metrics

ROOT = Path(__file__).parent.parent
STEPS = 120
CLUSTER = ROOT / "tests" / "slurm" / "cluster.sh"
# The first two starts have steps of at least a second, so that Slurm, which signals after 75 seconds, is always
# earlier than the end; later ones are as fast as they can be. The curriculum cannot wait: the schedules' figures ask it
# for steps in plenty before the first one.
SLOW = """
import pathlib
import time
from torch.optim.optimizer import register_optimizer_step_pre_hook

STARTS = pathlib.Path({starts!r})


def wait(*_):
    if STARTS.exists() and len(STARTS.read_text().splitlines()) < 3:
        time.sleep(1)


register_optimizer_step_pre_hook(wait)


def exits(step, n_layers, total_steps):
    return [step % 2, n_layers - 1]
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The environment speaks to a Slurm with the nodes n1 and n2."""
    search = os.environ["PATH"] + ":/usr/sbin"
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name, path=search)]
    if missing and os.environ.get("REQUIRE_SLURM") != "1":
        pytest.skip(f"no {', '.join(missing)} here: apt-get install slurm-wlm munge")
    folder = tmp_path / "cluster"
    subprocess.run([CLUSTER, "start", folder], check=True)
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    yield folder
    subprocess.run("scancel --user $(id -un); sleep 1", shell=True)
    subprocess.run([CLUSTER, "stop", folder], check=True)


def run(*words: object) -> str:
    done = subprocess.run([str(word) for word in words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def wait(what: str, holds: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what} has not come about"
        time.sleep(0.3)


def job(number: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S+)", run("scontrol", "show", "job", number)))


def steps(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return max((row["step"] for row in read_metrics(path)), default=0) if path.exists() else 0


@pytest.mark.slow
def test_a_preempted_job_ends_by_itself_as_if_in_one_piece(tmp_path: Path, cluster: Path, tiny_run: list[str]) -> None:
    options = [
        *tiny_run,
        f"train.steps={STEPS}",
        "checkpoint.every=1000",
        "validation.every=1000",
        "wandb.mode=offline",
    ]
    options += ["early_exit=all", "early_exit.curriculum=slow_exits:exits", "layer_dropout=exp_scratch"]
    folder = tmp_path / "parts"
    (tmp_path / "slow_exits.py").write_text(SLOW.format(starts=str(folder / "starts.jsonl")))
    # In one piece, without Slurm, on as many ranks.
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", 2, "-m", "train.pretrain"]
    run(*torchrun, *options, f"run_dir={tmp_path / 'whole'}")

    flags = ["--nodes", 2, "--time", 3, "--signal", "B:USR1@105", "--output", tmp_path / "slurm-%j.out"]
    submitted = run("slurm/submit.sh", *flags, "slurm/pretrain.sh", *options, f"run_dir={folder}")
    number = submitted.split()[-1]
    [snapshot] = (folder / "code").iterdir()
    (snapshot / "REVISION").write_text("of the snapshot\n")
    wait("the first training", lambda: steps(folder) >= 1)
    run("scontrol", "requeue", number)
    # From here on nobody does anything: Slurm signals 45 to 75 seconds after each start.
    wait("the end", lambda: job(number)["JobState"] in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"), 500)
    output = (folder / f"slurm-{number}.out").read_text()
    assert job(number)["JobState"] == "COMPLETED", output
    assert int(job(number)["Restarts"]) >= 2
    # The first rank may hear of it from the other one before the signal has come to it.
    cause = r"(SIG(TERM|USR1) \d+\.\d s ago|another rank's signal)"
    assert len(re.findall(rf"{cause}: saved at step \d+ of", output)) >= 2, output
    assert f"job {number} is queued again" in output
    # What one start leaves behind does not end the next one.
    ended = [line for line in output.splitlines() if "*** STEP" in line]
    assert all("DUE TO JOB REQUEUE" in line for line in ended), output
    assert (folder / "exit_status").read_text() == "0\n"
    assert [r["step"] for r in rows(folder)] == [*range(1, STEPS + 1), STEPS]
    assert rows(folder) == rows(tmp_path / "whole")
    # It trained from the snapshot that was made when it was submitted.
    starts = (folder / "starts.jsonl").read_text().splitlines()
    assert len(starts) >= 3
    assert all(json.loads(line)["revision"] == "of the snapshot" for line in starts)


@pytest.mark.slow
def test_what_a_job_refuses(tmp_path: Path, cluster: Path, tiny_run: list[str]) -> None:
    """In one line, and it is not queued again."""
    big = [*tiny_run, "cluster.needs_gpu=true", f"run_dir={tmp_path / 'big'}"]
    jobs = {
        "error: train.steps=-1: must be at least 1": ["slurm/pretrain.sh", *tiny_run, "train.steps=-1"],
        "error: checkpoint.initial=...: missing; what to start from": ["slurm/finetune.sh", *tiny_run],
        "no GPU here; ask for GPUs": ["slurm/pretrain.sh", *big],
    }
    for message, words in jobs.items():
        number = run("sbatch", "--parsable", "--nodes", 2, "--output", tmp_path / "%j.out", *words)
        wait("the end", lambda number=number: job(number)["JobState"] == "FAILED", 60)  # type: ignore[misc]
        assert job(number)["ExitCode"] == "2:0"
        written = [tmp_path / f"{number}.out", *(tmp_path / "big").glob("slurm-*.out")]
        text = "".join(path.read_text() for path in written if path.exists())
        assert message in text
        assert "Traceback" not in text


@pytest.mark.slow
def test_each_checkpoint_is_evaluated_in_a_job_of_its_own(tmp_path: Path, cluster: Path, tiny_run: list[str]) -> None:
    options = [*tiny_run, "train.steps=8", "checkpoint.every=4", "wandb.mode=offline", f"run_dir={tmp_path / 'run'}"]
    environment = f"ALL,EVAL=eval.perplexity source={ROOT / 'README.md'} max_tokens=500"
    words = ["--nodes", 1, "--output", tmp_path / "%j.out", f"--export={environment}", "slurm/pretrain.sh", *options]
    run("sbatch", *words)
    folder = tmp_path / "run" / "evaluations"
    log = folder / "slurm-3.out"
    wait("the second evaluation", lambda: log.exists() and "logged to W&B" in log.read_text())
    assert {f"eval.perplexity-step-{step}.json" for step in (4, 8)} <= {f.name for f in folder.iterdir()}
    identity = (tmp_path / "run" / "wandb_id").read_text()
    for number, step in ((2, 4), (3, 8)):
        assert f"numbers of step {step} logged to W&B run {identity}" in (folder / f"slurm-{number}.out").read_text()


# The first process of one run is killed before its first checkpoint; the next one finds the mark.
DIES_ONCE = """
import os, pathlib, signal

MARK = pathlib.Path({mark!r})


def exits(step, n_layers, total_steps):
    words = pathlib.Path("/proc/self/cmdline").read_text()
    if step == 3 and "LOCAL_RANK" in os.environ and not MARK.exists() and "train.seed=1" in words:
        MARK.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return [step % 2, n_layers - 1]
"""


@pytest.mark.slow
def test_a_sweep_is_an_array_whose_tasks_are_queued_again_alone(
    tmp_path: Path, cluster: Path, tiny_run: list[str]
) -> None:
    (tmp_path / "dies_once.py").write_text(DIES_ONCE.format(mark=str(tmp_path / "mark")))
    options = [*tiny_run, "train.steps=6", "checkpoint.every=2", "validation.every=2", f"run_dir={tmp_path / 'sweep'}"]
    options += ["early_exit=all", "early_exit.curriculum=dies_once:exits", "train.seed=0,1"]
    flags = ["--nodes", 1, "--output", tmp_path / "slurm-%j.out"]
    submitted = run("slurm/sweep.sh", *flags, "slurm/pretrain.sh", *options)
    lines = Path(re.findall(r"2 runs, a line each: (\S+)", submitted)[0])
    number = submitted.split()[-1]
    folders = [tmp_path / "sweep" / f"train.seed={seed}" for seed in (0, 1)]
    assert all([path.name for path in folder.iterdir()] == ["code"] for folder in folders), "before any task starts"
    ended = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED")
    tasks = [f"{number}_{i}" for i in (1, 2)]
    wait("the end", lambda: all(job(task)["JobState"] in ended for task in tasks), 600)
    logs = ["".join(path.read_text() for path in folder.glob("slurm-*.out")) for folder in folders]
    assert [job(task)["JobState"] for task in tasks] == ["COMPLETED"] * 2, logs
    assert [job(task)["Restarts"] for task in tasks] == ["0", "1"]
    assert f"job {number}_2 is queued again" in logs[1]
    for seed, folder in enumerate(folders):
        assert (folder / "exit_status").read_text() == "0\n"
        assert steps(folder) == 6
        assert f"train.seed={seed}" in json.loads((folder / "starts.jsonl").read_text().splitlines()[0])["command"]
    assert (folders[1] / "kills").read_text() == f"job {number}_2 was killed after \n"
    # What it leaves is what eval.figures takes: one arm, two seeds.
    drawn = run(sys.executable, "-m", "eval.figures", f"runs=[{tmp_path / 'sweep'}]", f"output={tmp_path / 'figures'}")
    assert drawn.startswith("EE, ")
    assert "n = 2: " in drawn
    lines.unlink()


@pytest.mark.slow
def test_a_sweep_with_a_mistake_submits_nothing(tmp_path: Path, cluster: Path, tiny_run: list[str]) -> None:
    words = ["slurm/sweep.sh", "slurm/pretrain.sh", *tiny_run, f"run_dir={tmp_path / 'sweep'}", "train.steps=2,0"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip() == "error: train.steps=0: must be at least 1 (in job train.steps=0)"
    assert not (tmp_path / "sweep").exists()
    assert run("squeue", "--noheader") == ""
