"""What eval.benchmark and eval.sweep have measured of the runs, averaged over the seeds of each arm."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from conf.strict import ConfigError
from eval.config import Mode
from eval.figure.arms import Arm
from eval.figure.config import Spread
from eval.figure.run import Run
from eval.figure.spread import Band, band
from eval.figure.task_scores import read_rows, result_files
from eval.results.bootstrap import Estimate
from eval.results.row import OverBaseline, Speed
from eval.results.sweep_config import AGREEMENT
from eval.setting import Setting

SPEEDUP = "speedup"
OF_MEANS = "speedup_of_means"
NUMBERS = (SPEEDUP, OF_MEANS, "speedup_of_means_over_baseline", "tokens_per_second", "ms_per_token", "acceptance_rate")
"""Of a row, besides the metrics of its task."""
SAME = ("n_samples", "seed", "hardware", "dtype")
"""What rows of one task must have in common to stand in one table."""
NEEDED = ("task", "mode", "exit_layer", "num_speculations", SPEEDUP, OF_MEANS, "tokens_per_second", *SAME)
ESTIMATES = {f.name for part in (Speed, OverBaseline) for f in fields(part) if f.type is Estimate} | {AGREEMENT}
ORDER = tuple(Mode)


@dataclass(frozen=True, kw_only=True)
class SpeedRow:
    """One setting of one arm on one task."""

    task: str
    arm: str
    setting: Setting
    numbers: Mapping[str, Band]
    """Of NUMBERS and the task's metrics those that were measured. Where there is one seed, an interval is that of
    95 % over samples."""
    facts: str
    """Samples and machine, in a line."""
    n: int
    """Seeds."""


def speed_rows(named: Sequence[str], arms: Sequence[Arm], spread: Spread) -> list[SpeedRow]:
    """Rows by task, arm and setting.

    Args:
        named: files or globs; none: those in the runs' folders, of each run and task the one with the most samples.
        arms: of which they are.
        spread: what the intervals of several seeds are.

    Raises ConfigError for files that are none of ours, of none of the runs, or not comparable.
    """
    measured = _measured(named, [run for arm in arms for run in arm.runs])
    _check_same(measured)
    found = []
    for task in dict.fromkeys(task for _, task in measured):
        for arm in arms:
            folders = [run.folder for run in arm.runs]
            its = [rows for (folder, of), (_, rows) in measured.items() if of == task and folder in folders]
            found += _of_arm(task, arm.name, its, spread)
    return found


Measured = dict[tuple[Path, str], tuple[Path, list[dict[str, Any]]]]
"""(folder of the run, task) -> (file, its rows)."""


def _measured(named: Sequence[str], runs: Sequence[Run]) -> Measured:
    usual = ("sweep*.json", "benchmark*.json", "evaluations/eval.sweep.json", "evaluations/eval.benchmark.json")
    found: Measured = {}
    for file, run in result_files(named, runs, "speed", usual):
        rows = read_rows(file, NEEDED)
        key = run.folder, str(rows[0]["task"])
        if key in found and named:
            raise ConfigError(f"speed: {found[key][0]} and {file} are both of {key[1]} and {run.folder}; leave one out")
        if key not in found or _size(rows) > _size(found[key][1]):
            found[key] = file, rows
    return found


def _size(rows: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    return int(rows[0]["n_samples"]), len(rows)


def _check_same(measured: Measured) -> None:
    first: dict[str, tuple[Path, Mapping[str, Any]]] = {}
    for (_, task), (file, rows) in measured.items():
        where, other = first.setdefault(task, (file, rows[0]))
        for key in SAME:
            if rows[0][key] != other[key]:
                raise ConfigError(
                    f"speed: {task} has {key}={rows[0][key]} in {file} and {other[key]} in {where}; measure them alike,"
                    " or name the files to take with 'speed=[PATH]'"
                )


def _of_arm(task: str, arm: str, seeds: Sequence[Sequence[Mapping[str, Any]]], spread: Spread) -> list[SpeedRow]:
    by_setting: dict[Setting, list[Mapping[str, Any]]] = {}
    for rows in seeds:
        for row in rows:
            numbers = row["exit_layer"], row["num_speculations"]
            setting = Setting(row["mode"], *numbers, row.get("exit_states"), row.get("policy"))
            by_setting.setdefault(setting, []).append(row)
    order = sorted(by_setting, key=lambda s: (_place(s.mode), s.exit_layer, s.num_speculations))
    # A setting that some seeds lack would be a mean over other models than its neighbours.
    return [
        SpeedRow(
            task=task,
            arm=arm,
            setting=setting,
            numbers=_numbers(its, spread),
            facts=_facts(its[0]),
            n=len(its),
        )
        for setting in order
        if len(its := by_setting[setting]) == len(seeds)
    ]


def _place(mode: str) -> int:
    return ORDER.index(Mode(mode)) if mode in list(Mode) else len(ORDER)


def _facts(row: Mapping[str, Any]) -> str:
    return f"{row['n_samples']} samples, seed {row['seed']}; {row['hardware']}, {row['dtype']}"


def _numbers(rows: Sequence[Mapping[str, Any]], spread: Spread) -> dict[str, Band]:
    metrics = [key for key in rows[0] if f"{key}_low" in rows[0] and key not in ESTIMATES]
    found = {}
    for name in (*metrics, *NUMBERS):
        values = [float(row[name]) for row in rows if row.get(name) is not None]
        if len(values) < len(rows):
            continue
        if len(rows) == 1 and rows[0].get(f"{name}_low") is not None:
            found[name] = Band(values[0], rows[0][f"{name}_low"], rows[0][f"{name}_high"], 1)
        else:
            found[name] = band(values, spread)
    return found


def metrics_in(rows: Iterable[SpeedRow]) -> list[str]:
    """The tasks' metrics that rows have."""
    return [name for name in dict.fromkeys(name for row in rows for name in row.numbers) if name not in NUMBERS]


def best_drafts(rows: Sequence[SpeedRow]) -> list[SpeedRow]:
    """Without self-speculation at other d than the fastest of each arm, task and E; of equal ones the smallest d."""
    best: dict[Any, SpeedRow] = {}
    for row in rows:
        key = row.task, row.arm, row.setting.mode, row.setting.exit_layer
        if key not in best or row.numbers[SPEEDUP].mean > best[key].numbers[SPEEDUP].mean:
            best[key] = row
    return list(best.values())
