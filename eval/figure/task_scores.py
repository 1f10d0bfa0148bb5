"""What eval.exits has measured of the runs: metrics of tasks by exit layer."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from conf.errors import reason
from conf.run_folders import matches
from conf.strict import ConfigError
from eval.figure.run import Run
from eval.lm.exit_rows import ExitScore

OLDER = re.compile(r"_step-\d|-step-\d|\.[0-9a-f]{8}\.json$")
"""Of an earlier checkpoint's weights, or a measurement that another one has taken the name of."""


class Metric(NamedTuple):
    """What a panel shows."""

    task: str
    metric: str
    filter: str

    @property
    def title(self) -> str:
        """Heading of the panel."""
        return self.task

    @property
    def label(self) -> str:
        """Label of its vertical axis."""
        return self.metric if self.filter == "none" else f"{self.metric} ({self.filter})"


@dataclass(frozen=True)
class TaskScores:
    """The scores of one run."""

    run: Run
    values: Mapping[Metric, Mapping[int, float]]
    """Metric -> exit layer -> value."""


def task_scores(named: Sequence[str], runs: Sequence[Run]) -> list[TaskScores]:
    """The scores of each run that has any.

    Args:
        named: files or globs; none: those in the runs' folders.
        runs: of which they must be.

    Raises ConfigError for files that are no result of eval.exits, are of none of the runs, or cannot be compared.
    """
    found: dict[Path, dict[Metric, dict[int, float]]] = {}
    seen: dict[Metric, tuple[Any, Path]] = {}
    for file, run in result_files(named, runs, "exits", ("exits*.json", "evaluations/eval.exits.json")):
        for row in read_rows(file, [f.name for f in fields(ExitScore)]):
            metric = Metric(row["task"], row["metric"], row["filter"])
            how = (row["n_samples"], row["num_fewshot"])
            before, where = seen.setdefault(metric, (how, file))
            if before != how:
                raise ConfigError(
                    f"exits: {metric.task} has {how[0]} samples and {how[1]} shots in {file}, {before[0]} and"
                    f" {before[1]} in {where}; name the files to take with 'exits=[PATH]'"
                )
            by_exit = found.setdefault(run.folder, {}).setdefault(metric, {})
            if by_exit.setdefault(int(row["exit_layer"]), float(row["value"])) != float(row["value"]):
                raise ConfigError(
                    f"exits: {run.folder} has several results for {metric.task}, {file} and another one;"
                    " name the files to take with 'exits=[PATH]'"
                )
    return [TaskScores(run, found[run.folder]) for run in runs if run.folder in found]


def metrics_of(scores: Sequence[TaskScores]) -> list[Metric]:
    """All of them, in the order in which they come."""
    return list(dict.fromkeys(metric for its in scores for metric in its.values))


def result_files(named: Sequence[str], runs: Sequence[Run], key: str, usual: Sequence[str]) -> list[tuple[Path, Run]]:
    """Result files, each with the run that it lies in or whose checkpoint it names.

    Args:
        named: files or globs; none: what fits `usual` in the runs' folders.
        runs: that are drawn.
        key: the user's key, for messages.
        usual: globs beneath a run's folder.
    """
    if not named:
        return [
            (file, run)
            for run in runs
            for pattern in usual
            for file in sorted(run.folder.glob(pattern))
            if not OLDER.search(file.name)
        ]
    return [(file, _owner(file, runs, key)) for name in named for file in matches(name, key)]


def _owner(file: Path, runs: Sequence[Run], key: str) -> Run:
    checkpoint = Path(str(read_rows(file, ["checkpoint"])[0]["checkpoint"])).expanduser()
    for path in (file.resolve(), checkpoint.resolve()):
        for run in runs:
            if path.is_relative_to(run.folder.resolve()):
                return run
    raise ConfigError(f"{key}: {file} is of {checkpoint}, which is none of the runs; leave it out, or add its run")


def read_rows(file: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a result file, each with at least these keys. Raises ConfigError."""
    try:
        rows = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read ({reason(error)}); leave it out") from None
    whole = isinstance(rows, list) and rows and all(isinstance(row, dict) and row.keys() >= set(keys) for row in rows)
    if not whole:
        raise ConfigError(
            f"{file}: no rows with {', '.join(keys[:4])}; not a result of the command that is expected here"
        )
    return list(rows)
