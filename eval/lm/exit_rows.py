"""The results of tasks at several exits as rows, and those as a table and as curves."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from eval.depth.plot import Curve
from eval.results.columns import stacked


@dataclass(frozen=True, kw_only=True)
class ExitScore:
    """One metric of one task at one exit. The keys of exits.json are the names of the fields."""

    task: str
    metric: str
    filter: str
    """`none`, or how lm-eval has read the answer."""
    exit_layer: int
    value: float
    stderr: float | None
    higher_is_better: bool | None
    num_fewshot: int | None
    n_samples: int | None


def exit_scores(results: dict[str, Any], names: Iterable[str], exit_layer: int) -> list[ExitScore]:
    """One row for each metric of each of the named tasks; a group without metrics of its own has its tasks' instead."""
    rows = []
    for name in _with_metrics(results, names):
        metrics = results["results"][name]
        for key, value in metrics.items():
            metric, comma, filter_name = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = metrics.get(f"{metric}_stderr,{filter_name}")
            rows.append(
                ExitScore(
                    task=name,
                    metric=metric,
                    filter=filter_name,
                    exit_layer=exit_layer,
                    value=float(value),
                    stderr=float(error) if isinstance(error, int | float) else None,
                    higher_is_better=results.get("higher_is_better", {}).get(name, {}).get(metric),
                    num_fewshot=results.get("n-shot", {}).get(name),
                    n_samples=metrics.get("sample_len"),
                )
            )
    return rows


def _with_metrics(results: dict[str, Any], names: Iterable[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        has_metrics = any("," in key for key in results["results"].get(name, {}))
        found += [name] if has_metrics else _with_metrics(results, results.get("group_subtasks", {}).get(name, []))
    return found


def _series(rows: Sequence[ExitScore]) -> dict[tuple[str, str, str], list[ExitScore]]:
    """The rows of each task, metric and filter, by exit."""
    series: dict[tuple[str, str, str], list[ExitScore]] = {}
    for row in rows:
        series.setdefault((row.task, row.metric, row.filter), []).append(row)
    return series


def curves(rows: Sequence[ExitScore]) -> list[Curve]:
    """For the plot."""
    return [
        Curve(
            title=task,
            label=_label(metric, filter_name),
            exits=[row.exit_layer for row in several],
            values=[row.value for row in several],
            errors=[row.stderr or 0.0 for row in several],
        )
        for (task, metric, filter_name), several in _series(rows).items()
    ]


def exit_table(rows: Sequence[ExitScore]) -> str:
    """A line for each exit, a column for each metric, as many beside each other as fit; ± is one standard error."""
    series = _series(rows)
    exits = sorted({row.exit_layer for row in rows})
    columns = []
    for (task, metric, filter_name), several in series.items():
        cells = [task, _label(metric, filter_name), *(_cell(row) for row in several)]
        width = max(map(len, cells))
        columns.append([cell.rjust(width) for cell in cells])
    first = [cell.rjust(len("exit_layer")) for cell in ("", "exit_layer", *map(str, exits))]
    return "\n".join(stacked([first, *columns]))


def _label(metric: str, filter_name: str) -> str:
    return metric if filter_name == "none" else f"{metric} ({filter_name})"


def _cell(row: ExitScore) -> str:
    error = f" ±{row.stderr:.4f}" if row.stderr else ""
    return (f"{row.value:.4f}" if abs(row.value) < 1000 else f"{row.value:,.4g}") + error
