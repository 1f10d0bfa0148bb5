"""Results of lm-evaluation-harness as files, in its own format."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval.utils import handle_non_serializable

from data.files import write_whole
from eval.lm.answers import question
from eval.lm.model import LayerSkipLM


def resume(lm: LayerSkipLM, output: Path, *, fresh: bool) -> None:
    """Keep its answers beside the output, and take those that a killed command of the same model and exit has left.

    `fresh` begins anew all the same.
    """
    who = lm.who()
    path = output.with_name(f"{output.stem}.answers-{question(who)[:8]}.jsonl")
    if fresh:
        path.unlink(missing_ok=True)
    if n := lm.answers.keep(path, who):
        print(f"goes on after {n:,} answers of an earlier start", file=sys.stderr)


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
