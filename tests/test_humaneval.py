"""HumanEval: the problems, the protocol, and pass@k."""

import gzip
import json
from itertools import combinations
from pathlib import Path

import pytest

from conf.strict import ConfigError
from data.config import DataError
from eval.humaneval.execution import WARNING, check_all, check_answer
from eval.humaneval.problems import Problem, read_problems
from eval.humaneval.protocol import pass_at_k, program_of, truncate
from eval.sandbox.limits import Limits, Status

PROBLEMS = read_problems()
LIMITS = Limits(cpu_seconds=20, wall_seconds=60)


def test_the_published_problems() -> None:
    assert list(PROBLEMS) == [f"HumanEval/{i}" for i in range(164)]
    first = PROBLEMS["HumanEval/0"]
    assert first.entry_point == "has_close_elements"
    assert first.prompt.endswith('    True\n    """\n')


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_problems_from_a_file(tmp_path: Path, suffix: str) -> None:
    text = json.dumps(vars(PROBLEMS["HumanEval/3"])).encode()
    path = tmp_path / f"problems{suffix}"
    path.write_bytes(gzip.compress(text) if suffix.endswith(".gz") else text)
    assert read_problems(path) == {"HumanEval/3": PROBLEMS["HumanEval/3"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("{}", ":1: no field 'task_id'"),
        ("\n[1]", ":2: not an object with the fields task_id"),
        ("{", ":1: broken JSON"),
        (json.dumps(vars(PROBLEMS["HumanEval/3"]) | {"test": 1}), ":1: no text in field 'test'"),
        ("\n".join([json.dumps(vars(PROBLEMS["HumanEval/3"]))] * 2), ":2: a second problem HumanEval/3"),
    ],
)
def test_bad_problems(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        read_problems(tmp_path / "p.jsonl")


@pytest.mark.sandbox
@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_canonical_solutions_pass_and_empty_ones_fail(every: int) -> None:
    problems = list(PROBLEMS.values())[::every]
    answers = [(problem, problem.canonical_solution) for problem in problems]
    empty = [(problem, "    pass\n") for problem in problems]
    statuses = [outcome.status for outcome in check_all(answers + empty, LIMITS, allow_execution=True)]
    assert statuses == [Status.passed] * len(problems) + [Status.failed] * len(problems)


@pytest.mark.sandbox
def test_one_wrong_answer() -> None:
    problem = PROBLEMS["HumanEval/0"]
    wrong = problem.canonical_solution.replace("distance < threshold", "distance > threshold")
    assert wrong != problem.canonical_solution
    assert check_answer(problem, wrong, LIMITS, allow_execution=True).reason == "failed: AssertionError"


@pytest.mark.sandbox
def test_leaving_before_the_tests_is_no_pass() -> None:
    for leave in ("import os; os._exit(0)", "raise SystemExit(0)", "import sys; sys.exit()"):
        assert (
            check_answer(PROBLEMS["HumanEval/0"], f"    {leave}\n", LIMITS, allow_execution=True).status
            is Status.failed
        )


def test_off_unless_asked_for() -> None:
    with pytest.raises(ConfigError, match="execute=false: programs that a model has written"):
        check_answer(PROBLEMS["HumanEval/0"], "", LIMITS, allow_execution=False)
    assert "execute=true" in WARNING


def test_program() -> None:
    problem = Problem(task_id="x", prompt="def f():\n", entry_point="f", canonical_solution="", test="def check(c): 1")
    assert program_of(problem, "    return 1") == "def f():\n    return 1\ndef check(c): 1\ncheck(f)"


@pytest.mark.parametrize(
    ("completion", "kept"),
    [
        ("    return 1\n", "    return 1\n"),
        ("    return 1\n\n\ndef g():\n", "    return 1\n\n"),
        ("    return 1\n@cache\ndef g():\n", "    return 1"),
        ("    return 1\n# that was it\nclass A:", "    return 1"),
        (
            "    if x:\n        print(1)\n    # a comment\n    return\nprint(f())",
            "    if x:\n        print(1)\n    # a comment\n    return",
        ),
        ("    return 1\nif __name__", "    return 1"),
    ],
)
def test_truncation(completion: str, kept: str) -> None:
    assert truncate(completion) == kept


@pytest.mark.parametrize("n", range(1, 7))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n: int) -> None:
    for c in range(n + 1):
        right = [i < c for i in range(n)]
        for k in range(1, n + 1):
            subsets = list(combinations(right, k))
            assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-15)


def test_pass_at_k_of_many() -> None:
    assert pass_at_k(200, 3, 1) == pytest.approx(3 / 200)
    assert pass_at_k(10_000, 1, 100) == pytest.approx(0.01)
    for n, c, k in ((3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0)):
        with pytest.raises(ValueError, match="needs"):
            pass_at_k(n, c, k)
