"""What is written down about a skipped step: its numbers, and the rows of its batch."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from models.exits import exit_name
from train.resilience.line_file import LineFile

IN_A_LINE = 8
"""Rows of a source that are named in the log; bad_steps.jsonl has all."""


class BadStep(NamedTuple):
    """A skipped step."""

    step: int
    why: str
    loss: float
    exit_layer: int
    exit_loss: float
    grad_norm: float
    rows: Sequence[dict[str, int]]
    """Of all ranks, as data.batches.loader.Loader.origins has them."""

    def line(self, sources: Sequence[str], total: int) -> str:
        """For the log."""
        parts = []
        for s in sorted({row["source"] for row in self.rows}):
            mine = [row.get("index", row["row"]) for row in self.rows if row["source"] == s]
            more = f" and {len(mine) - IN_A_LINE} more" if len(mine) > IN_A_LINE else ""
            parts.append(f"{sources[s]} {', '.join(map(str, mine[:IN_A_LINE]))}{more}")
        return (
            f"step {self.step} SKIPPED: {self.why} (loss {self.loss:.4g}, after {self.exit_layer} layers"
            f" {self.exit_loss:.4g}, gradient {self.grad_norm:.4g}); skipped so far: {total}; its rows:"
            f" {'; '.join(parts)}"
        )

    def metrics(self) -> dict[str, float]:
        """For the sinks, which have no word for what is not finite."""
        values = {
            "bad_step/objective": self.loss,
            f"bad_step/loss/{exit_name(self.exit_layer)}": self.exit_loss,
            "bad_step/grad_norm": self.grad_norm,
        }
        return {key: value for key, value in values.items() if math.isfinite(value)}

    def append_to(self, path: Path, sources: Sequence[str]) -> None:
        """Write everything as one line of JSON; numbers that are not finite as text."""
        numbers = {"loss": self.loss, "exit_loss": self.exit_loss, "grad_norm": self.grad_norm}
        line = {
            "step": self.step,
            "why": self.why,
            "exit_layer": self.exit_layer,
            **{key: value if math.isfinite(value) else str(value) for key, value in numbers.items()},
            "rows": [row | {"source": sources[row["source"]]} for row in self.rows],
        }
        file = LineFile(path)
        file.write(json.dumps(line))
        file.close()
