"""What the page's script draws: everything of some runs, cut down to what a screen can show."""

import re
from collections.abc import Sequence
from typing import Any

from train.report_page.run_record import RunRecord
from train.report_page.schedules import schedules_of
from train.report_page.thinned import rounded, thinned, thinned_rows
from train.run_dir import flatten

OF_LAYER = re.compile(r"(.+)/(?:exit|layer)_(\d+)")
"""A metric of one exit or layer: what is measured, and after how many layers."""
MOST_POINTS, FEWEST_POINTS = 800, 60
"""Of one series."""
ALL_POINTS = 24_000
"""Of all series together: the page stays below a megabyte."""
MOST_ROWS, FEWEST_ROWS = 400, 20
"""Validations of one run."""
ALL_NUMBERS = 50_000
"""Of all validations together."""


def content_of(records: Sequence[RunRecord]) -> dict[str, Any]:
    """Plain values, without NaN."""
    by_exit, numbers = zip(*(_split(record) for record in records), strict=True)
    n_series = sum(len(series) for series in numbers) or 1
    n_points = min(MOST_POINTS, max(FEWEST_POINTS, ALL_POINTS // n_series))
    n_in_a_row = sum(max(map(len, of_run.values()), default=0) for of_run in by_exit) or 1
    n_rows = min(MOST_ROWS, max(FEWEST_ROWS, ALL_NUMBERS // n_in_a_row))
    return {
        "runs": [
            _facts(record)
            | {
                "validations": _validations(of_run, n_rows),
                "series": {key: _thinned(steps, values, n_points) for key, (steps, values) in of_keys.items()},
                "events": [vars(event) for event in record.events()],
            }
            | _schedules(record)
            for record, of_run, of_keys in zip(records, by_exit, numbers, strict=True)
        ],
        **_configurations(records),
    }


def _facts(record: RunRecord) -> dict[str, Any]:
    train, model = record.section("train"), record.section("model")
    batch, seq_len, n_layers = train.get("global_batch_size"), train.get("seq_len"), model.get("n_layers")
    start = record.starts[-1] if record.starts else {}
    written = record.last_written
    return {
        "name": record.name,
        "folder": str(record.folder),
        "recipe": str(record.config.get("recipe", "")),
        "model": str(model.get("name", "")),
        "n_layers": n_layers if isinstance(n_layers, int) else None,
        "state": record.state,
        "finished": record.finished,
        "step": record.metrics.last_step,
        "total_steps": record.total_steps,
        "tokens_per_step": batch * seq_len if isinstance(batch, int) and isinstance(seq_len, int) else None,
        "last_written": None if written is None else round(1000 * written),
        "revision": str(start.get("revision", "")),
        "host": str(start.get("host", "")),
        "ranks": start.get("ranks") if isinstance(start.get("ranks"), int) else None,
        "restarts": max(0, len(record.starts) - 1),
        "skipped": len(record.skipped),
        "notes": list(record.notes),
    }


Series = dict[str, tuple[Sequence[int], Sequence[float]]]
ByExit = dict[int, dict[tuple[str, int], float]]
"""Step -> (metric, exit layer) -> value."""


def _split(record: RunRecord) -> tuple[ByExit, Series]:
    """Validations, which are rows of one step each, and all other numbers."""
    rows: ByExit = {}
    others: Series = {}
    for key, (steps, values) in record.metrics.series.items():
        found = OF_LAYER.fullmatch(key)
        if found and key.startswith("val/"):
            for step, value in zip(steps, values, strict=True):
                rows.setdefault(step, {})[found[1], int(found[2])] = value
        elif not key.startswith("bad_step/"):  # among the events
            others[key] = (steps, values)
    return rows, others


def _thinned(steps: Sequence[int], values: Sequence[float], n: int) -> list[list[Any]]:
    kept, numbers = thinned(steps, values, n)
    return [kept, [rounded(value) for value in numbers]]


def _validations(rows: ByExit, n: int) -> dict[str, Any]:
    """Steps, exits, and metric -> [step][exit]; null where an exit was not validated."""
    steps = sorted(rows)
    metrics = sorted({metric for row in rows.values() for metric, _ in row})
    exits = sorted({exit_layer for row in rows.values() for _, exit_layer in row})
    if steps:
        deciding = [rows[step].get(("val/loss", exits[-1]), float("inf")) for step in steps]
        steps = [steps[i] for i in thinned_rows(steps, deciding, n)]
    return {
        "steps": steps,
        "exits": exits,
        "metrics": {
            metric: [[_finite(rows[step].get((metric, exit_layer))) for exit_layer in exits] for step in steps]
            for metric in metrics
        },
    }


def _finite(value: float | None) -> float | None:
    return None if value is None or value - value != 0.0 else rounded(value)


def _schedules(record: RunRecord) -> dict[str, Any]:
    if not record.config:
        return {"schedules": []}
    try:
        return {"schedules": schedules_of(record.config)}
    except ValueError as error:
        return {"schedules": [], "notes": [*record.notes, str(error)]}


def _configurations(records: Sequence[RunRecord]) -> dict[str, Any]:
    """Dotted keys with the value of each run, those first that differ; null for a run whose config has not the key."""
    flat = [flatten(record.config) for record in records]
    keys = sorted({key for config in flat for key in config})
    rows = [[key, *(_written(config[key]) if key in config else None for config in flat)] for key in keys]
    known = [i for i, config in enumerate(flat, 1) if config]
    return {
        "different": [row for row in rows if len({row[i] for i in known}) > 1],
        "same": [row for row in rows if len({row[i] for i in known}) == 1],
    }


def _written(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
