"""`recommend=true`: what eval.generate decodes with from now on."""

import json
from collections.abc import Sequence
from pathlib import Path

from conf.strict import ConfigError
from data.files import write_whole
from eval.results.row import Row, fastest_drafting


def recommend(rows: Sequence[Row], file: Path) -> None:
    """Write the fastest self-speculative row, and the fastest that has an exit layer. Raises ConfigError without one, or for one with another output."""
    best = fastest_drafting(rows)
    if best is None:
        raise ConfigError("recommend=true: no self-speculation was measured")
    if best.output.identical_output is False:
        raise ConfigError("recommend=true: the fastest setting's output differs; run eval.correctness")
    # For those who cannot choose in each round, the best fixed numbers stand beside a policy that does.
    fixed = fastest_drafting(row for row in rows if row.setting.exit_layer)
    written = [best, *([fixed] if fixed is not None and fixed is not best else [])]
    write_whole(file, (json.dumps([row.as_json() for row in written], indent=1) + "\n").encode())
    print(f"{file}: what eval.generate decodes with from now on")
