"""Where the checkpoints of a run folder lie, and which of them are complete."""

import re
from pathlib import Path

CHECKPOINTS = "checkpoint"


def complete_checkpoints(run_dir: str | Path) -> dict[int, Path]:
    """Step -> folder of every complete checkpoint. DCP writes .metadata last, under another name first."""
    folders = (f.parent for f in Path(run_dir, CHECKPOINTS).glob("step-*/.metadata"))
    return {int(m[1]): folder for folder in folders if (m := re.fullmatch(r"step-(\d+)", folder.name))}
