"""--multirun: which jobs a command line means, where each writes, and that all of them run."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from conf.multirun import Job, jobs_of, with_own_output
from conf.strict import ConfigError

ROOT = Path(__file__).parent.parent


def run(module: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_every_combination_in_order() -> None:
    jobs = jobs_of(["--multirun", "a=1,2", "b=x", "group=p,q", "c=[1,2]", "d='1,2'"], str)
    assert [job.overrides for job in jobs] == [
        [f"a={a}", "b=x", f"group={g}", "c=[1,2]", "d='1,2'"] for a in (1, 2) for g in ("p", "q")
    ]
    assert [job.name for job in jobs] == ["a=1,group=p", "a=1,group=q", "a=2,group=p", "a=2,group=q"]


def test_ranges_and_names_that_no_file_may_have() -> None:
    assert [job.name for job in jobs_of(["-m", "a=range(1,4)"], str)] == ["a=1", "a=2", "a=3"]
    assert [job.name for job in jobs_of(["-m", "a=x/y,x/z"], str)] == ["a=x_y", "a=x_z"]
    assert [job.name for job in jobs_of(["-m", "a=x/y,x_y"], str)] == ["job_1", "job_2"]
    assert [job.name for job in jobs_of(["-m", f"a={'x' * 200},y"], str)] == ["job_1", "job_2"]


def test_where_each_job_writes() -> None:
    raw = OmegaConf.create({"run_dir": "outputs/demo", "output": "a/table.json", "html": None})
    job = Job("a=1", ["a=1", "run_dir=outputs/demo"])
    assert with_own_output(job, raw, "run_dir", verbatim=False).overrides == ["a=1", "run_dir='outputs/demo/a=1'"]
    assert with_own_output(job, raw, "output", verbatim=True).overrides[-1] == "output=a/table.a=1.json"
    assert with_own_output(job, raw, "html", verbatim=False) == job
    swept = Job("run_dir=x", ["run_dir=x"])
    assert with_own_output(swept, raw, "run_dir", verbatim=False) == swept


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--multirun", "a=1"], "no key has several values"),
        (["--multirun", "a=1,2", "--cfg", "job"], "cannot be combined with --cfg"),
    ],
)
def test_what_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        jobs_of(words, str)


@pytest.mark.slow
def test_all_jobs_of_a_training_run_and_a_failed_one_is_told(tiny_run: list[str], tmp_path: Path) -> None:
    options = [*tiny_run, "train.steps=2", "train.log_every=1", f"run_dir={tmp_path / 'sweep'}", "checkpoint.every=1"]
    done = run("train.pretrain", *options, "--multirun", "optimizer.lr=1e30,1e-3")
    assert done.returncode == 1
    assert "job 2 of 2: optimizer.lr=0.001" in done.stderr
    assert done.stderr.splitlines()[-1] == "1 of 2 jobs failed: optimizer.lr=1e+30"
    rows = [json.loads(r) for r in (tmp_path / "sweep" / "optimizer.lr=0.001" / "metrics.jsonl").open()]
    assert [r["step"] for r in rows if "train/lr" in r] == [1, 2]
    assert rows[0]["train/lr"] == pytest.approx(0.001)


def test_nothing_starts_where_one_job_cannot(tiny_run: list[str], tmp_path: Path) -> None:
    options = [*tiny_run, f"run_dir={tmp_path / 'sweep'}"]
    done = run("train.pretrain", *options, "--multirun", "train.steps=2,0")
    assert done.returncode == 2
    assert done.stderr.strip() == "error: train.steps=0: must be at least 1 (in job train.steps=0)"
    assert not (tmp_path / "sweep").exists()


def test_a_text_with_commas_is_one_value(trained: Path) -> None:
    words = [f"checkpoint={trained}", "prompt=a, b = 1, 2", "max_new_tokens=2", "mode=autoregressive,early_exit"]
    done = run("eval.generate", "--multirun", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("a, b = 1, 2") == 2


def test_the_list_of_jobs_is_what_a_shell_would_run(tiny_run: list[str], tmp_path: Path) -> None:
    done = run(
        "train.pretrain", *tiny_run, f"run_dir={tmp_path / 'a sweep'}", "--jobs", "train.seed=0,1", "train.steps=2"
    )
    assert done.returncode == 0, done.stderr
    jobs = [shlex.split(line) for line in done.stdout.splitlines()]
    assert [words[-1] for words in jobs] == [f"run_dir='{tmp_path}/a sweep/train.seed={seed}'" for seed in (0, 1)]
    assert [words[-3:-1] for words in jobs] == [[f"train.seed={seed}", "train.steps=2"] for seed in (0, 1)]
    assert not (tmp_path / "a sweep").exists(), "nothing is run"
