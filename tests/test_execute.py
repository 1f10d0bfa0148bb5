"""The command that runs samples."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from conf.strict import ConfigError, convert, register_schema
from eval.humaneval.config import ExecuteConfig
from eval.humaneval.problems import read_problems
from eval.humaneval.samples import scores

ROOT = Path(__file__).parent.parent
PROBLEMS = list(read_problems().values())[:3]
WRONG = "    return None\n"


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """Three problems of two samples: two right, one right, none right."""
    path = tmp_path / "samples.jsonl"
    right = [[True, True], [False, True], [False, False]]
    lines = [
        {"task_id": problem.task_id, "completion": problem.canonical_solution if r else WRONG, "temperature": 0.2}
        for problem, answers in zip(PROBLEMS, right, strict=True)
        for r in answers
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def execute(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "eval.execute", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.sandbox
def test_scores_and_results(samples: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "out.jsonl.unfinished"
    done = execute(f"samples={samples}", f"output={tmp_path}/out.jsonl", "execute=true", "partial=true", "k=[1,2,3]")
    assert done.returncode == 0, done.stderr
    assert "pass@1      0.5000\npass@2      0.6667\n" in done.stdout
    assert "pass@3" not in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["passed"] for line in lines] == [True, True, False, True, False, False]
    assert lines[2]["result"].startswith("failed: ")
    assert lines[0]["temperature"] == 0.2
    summary = json.loads((tmp_path / "out.json").read_text())
    assert summary["results"] == {"passed": 3, "failed": 3}
    assert not unfinished.exists()


@pytest.mark.sandbox
def test_goes_on_where_it_was_killed(samples: Path, tmp_path: Path) -> None:
    """What is known is not run again, shown by a lie; half a line at the end is no result."""
    from eval.humaneval.samples import Results, read_samples

    output = tmp_path / "out.jsonl"
    config = ExecuteConfig(samples=str(samples), execute=True)
    first = read_samples(samples, {p.task_id: p for p in PROBLEMS}, cut=False)[2]
    results = Results(output, config.limits())
    lie = {"key": results.key(first), "passed": True, "result": "passed", "seconds": 0.0}
    results.remove()
    output.with_name("out.jsonl.unfinished").write_text(json.dumps(lie) + '\n{"key": "ha')
    done = execute(f"samples={samples}", f"output={output}", "execute=true", "partial=true")
    assert done.returncode == 0, done.stderr
    assert "passed           4" in done.stdout


@pytest.mark.parametrize(
    ("line", "words", "message"),
    [
        ("", ["execute=false", "partial=true"], "error: execute=false: programs that a model has written"),
        ("", ["execute=true"], "samples.jsonl: none for 161 of 164 problems (HumanEval/10, ...); partial=true"),
        ("{", ["execute=true"], "samples.jsonl:7: broken JSON"),
        ('{"task_id": "HumanEval/0"}', ["execute=true"], "samples.jsonl:7: no field 'completion'"),
        ('{"task_id": "X/0", "completion": ""}', ["execute=true"], "samples.jsonl:7: no problem has the task_id 'X/0'"),
        ("", ["execute=true", "output=x.txt"], "output=x.txt: must end in .jsonl"),
        ("", ["execute=true", "partial=true", "output=/dev/null/x.jsonl"], "output=/dev/null/x.jsonl: "),
        ("", ["cpu_seconds=0"], "cpu_seconds=0: must be at least 1"),
    ],
)
def test_refused_in_one_line(samples: Path, line: str, words: list[str], message: str) -> None:
    samples.write_text(samples.read_text() + line)
    done = execute(f"samples={samples}", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_configuration() -> None:
    register_schema("execute", ExecuteConfig)
    with initialize_config_module("conf", version_base="1.3"):
        config = convert(compose("execute", ["samples=x"]), ExecuteConfig)
        assert not config.execute
        with pytest.raises(ConfigError, match="k: give at least one"):
            convert(compose("execute", ["samples=x", "k=[0]"]), ExecuteConfig)


def test_scores_are_means_over_problems() -> None:
    results = [("a", True), ("a", False), ("b", False), ("b", False), ("b", False)]
    assert scores(results, [2, 1, 3]) == {"pass@1": 0.25, "pass@2": 0.5}
