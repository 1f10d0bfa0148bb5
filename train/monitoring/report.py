"""What a run has come to, in words and a table, from its metrics."""

import logging
import math
from pathlib import Path
from typing import Any

from conf.errors import reason
from conf.metrics_file import METRICS, read_metrics
from models.exit_quality import ExitQuality, quality_table
from models.exits import exit_layer_of

logger = logging.getLogger(__name__)


def exits_of(row: dict[str, Any]) -> list[str]:
    """The names of the exits a validation row has, shallowest first."""
    return sorted(key.rpartition("/")[2] for key in row if key.startswith("val/ppl/"))


def validation_line(row: dict[str, Any]) -> str:
    """Perplexity by exit in one line."""
    return "val ppl by exit  " + "  ".join(f"{exit_layer_of(e)}: {row[f'val/ppl/{e}']:.4g}" for e in exits_of(row))


def summary(run_dir: str | Path, facts: dict[str, float]) -> str:
    """The last validation as a table, one row an exit, and where everything lies; nan for what it did not measure."""
    folder = Path(run_dir)
    rows = [r for r in read_metrics(folder / METRICS) if exits_of(r)]
    if not rows:
        return f"run folder {folder}: metrics.jsonl has no validation, as after a full disk"
    row = rows[-1]
    qualities = [
        ExitQuality(
            exit_layer_of(e),
            *(row.get(f"val/{key}/{e}", math.nan) for key in ("loss", "ppl", "bpb", "agreement", "acceptance")),
        )
        for e in exits_of(row)
    ]
    lines = [
        quality_table(qualities),
        f"step {row['step']}, {row['val/tokens']:,.0f} held-out tokens; on the held-out text gzip -9 needs"
        f" {facts['gzip_bits_per_byte']:.3f} bits/byte, xz -9 {facts['xz_bits_per_byte']:.3f}",
        f"run folder {folder}: config.yaml, metrics.jsonl, perplexity_by_exit.png, checkpoint/, wandb/",
    ]
    return "\n".join(lines)


def save_summary(run_dir: str | Path, facts: dict[str, float]) -> str:
    """Write the table to summary.txt in the run folder; returns it."""
    text = summary(run_dir, facts)
    path = Path(run_dir, "summary.txt")
    try:
        path.write_text(text + "\n")
    except OSError as error:  # a full disk, at the end of a run that is done
        logger.warning("%s: cannot be written (%s)", path, reason(error))
    return text
