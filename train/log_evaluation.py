"""Add results of an evaluation to the training's W&B run: `python -m train.log_evaluation RUN_DIR STEP FILE.json ...`.

Every number in the files becomes eval/<file>/<path>, over the axis eval/step. Done by slurm/eval.sh.
"""

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from conf.errors import UserError


def numbers(tree: Any, path: str) -> Iterator[tuple[str, float]]:
    """(path, number) of all finite numbers in JSON; entries of a list are named after their position."""
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from numbers(value, f"{path}/{key}")
    elif isinstance(tree, int | float) and not isinstance(tree, bool) and math.isfinite(tree):
        yield path, float(tree)


def log_evaluation(run_dir: str, step: int, files: list[str]) -> str:
    """Log to the run that RUN_DIR/wandb_id names; returns what was done, in one line."""
    folder = Path(run_dir)
    try:
        options = yaml.safe_load((folder / "config.yaml").read_text())["wandb"]
        results = {Path(name).stem: json.loads(Path(name).read_text()) for name in files}
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"{run_dir}: no run folder, or no results ({error})") from None
    if options["mode"] == "disabled" or not (folder / "wandb_id").exists():
        return f"{run_dir}: the run is not in W&B"
    import wandb

    metrics = {key: value for name, tree in results.items() for key, value in numbers(tree, f"eval/{name}")}
    online = options["mode"] == "online"
    # Offline a folder of its own, as training cuts the files in RUN_DIR/wandb back when it goes on.
    place = folder if online else folder / "evaluations"
    place.mkdir(exist_ok=True)
    settings = wandb.Settings(silent=True, x_primary=False, x_label="eval") if online else wandb.Settings(silent=True)
    run = wandb.init(
        # Another process, the training, may be writing to the same run.
        mode="shared" if online else "offline",
        project=options["project"],
        entity=options["entity"],
        id=(folder / "wandb_id").read_text().strip(),
        resume="allow",
        dir=str(place),
        settings=settings,
    )
    run.define_metric("eval/*", step_metric="eval/step")
    run.log(metrics | {"eval/step": step})
    run.finish()
    return f"{run_dir}: {len(metrics)} numbers of step {step} logged to W&B run {run.id}"


if __name__ == "__main__":
    if len(sys.argv) < 4 or not sys.argv[2].isdecimal():
        sys.exit(__doc__)
    try:
        print(log_evaluation(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
    except UserError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(problem.exit_status)
