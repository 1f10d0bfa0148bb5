"""`recommend=true`: what eval.generate decodes with from now on."""

import json
from collections.abc import Sequence
from pathlib import Path

from conf.strict import ConfigError
from data.files import write_whole
from eval.results.row import Row, fastest_drafting


def recommend(rows: Sequence[Row], file: Path) -> None:
    """Write the fastest self-speculative row; beside policy=dynamic, which has no numbers, the best fixed ones.

    Raises ConfigError without such rows, or for one with another output.
    """
    best = fastest_drafting(rows)
    if best is None:
        raise ConfigError("recommend=true: no self-speculation was measured")
    if best.output.identical_output is False:
        raise ConfigError("recommend=true: the fastest setting's output differs; run eval.correctness")
    written = [best]
    if not best.setting.exit_layer:
        # For decoders that cannot choose in each round.
        fixed = fastest_drafting(row for row in rows if row.setting.policy is None)
        if fixed is None:
            raise ConfigError("recommend=true: the fastest is policy=dynamic; measure fixed settings too")
        written.append(fixed)
    write_whole(file, (json.dumps([row.as_json() for row in written], indent=1) + "\n").encode())
    print(f"{file}: what eval.generate decodes with from now on")
