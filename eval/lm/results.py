"""Results of lm-evaluation-harness as files, in its own format."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval.utils import handle_non_serializable

from data.files import write_whole


def save_results(results: Any, output: Path) -> None:
    """Write results as JSON; a kill leaves no half file."""
    write_whole(output, (_dumped(results, indent=2) + "\n").encode())


def save_samples(samples: Mapping[str, list[Any]], output: Path) -> list[Path]:
    """Every question with its answers and scores, a .jsonl for each task beside the output."""
    written = []
    for task, rows in samples.items():
        written.append(output.with_name(f"{output.stem}_samples_{task.replace('/', '_')}.jsonl"))
        write_whole(written[-1], "".join(_dumped(row) + "\n" for row in rows).encode())
    return written


def _dumped(content: Any, indent: int | None = None) -> str:
    return json.dumps(content, indent=indent, default=handle_non_serializable, ensure_ascii=False)
