"""Run folders as training leaves them, for tests of what reads them: long ones, odd ones, of any depth."""

import json
import math
from pathlib import Path
from typing import Any

import yaml
from conftest import compose_config

from train.run_dir import resolved


def write_run(folder: Path, *overrides: str, n_layers: int = 4, steps: int = 40, done: int | None = None) -> Path:
    """A run up to step `done`, with a row for each step and a validation every 10th."""
    folder.mkdir(parents=True)
    config = compose_config(
        f"model.n_layers={n_layers}", f"train.steps={steps}", "data=text", "data.source=text", *overrides
    )
    (folder / "config.yaml").write_text(yaml.safe_dump(resolved(config), sort_keys=False))
    start = {
        "time": "2026-11-28T10:00:00+0000",
        "from_step": 0,
        "host": "node17",
        "ranks": 8,
        "revision": "85c8492a" * 5,
    }
    (folder / "starts.jsonl").write_text(json.dumps(start) + "\n")
    with (folder / "metrics.jsonl").open("w") as stream:
        for step in range(1, (steps if done is None else done) + 1):
            for row in rows_of(step, n_layers):
                stream.write(json.dumps(row) + "\n")
    return folder


def rows_of(step: int, n_layers: int) -> list[dict[str, Any]]:
    """What a run writes at a step."""
    loss = 2.0 + 4.0 / step
    row = {
        "step": step,
        "train/objective": loss,
        "train/grad_norm": 1.0 + math.sin(step) / 10,
        "train/lr": 1e-3,
        "train/tokens": step * 256,
        "train/tokens_per_second": 1000.0,
        "train/data_wait_fraction": 0.01,
        f"train/loss/exit_{n_layers:02d}": loss,
        f"train/loss/exit_{1 + step % (n_layers - 1):02d}": loss + 1,
    }
    if step % 10:
        return [row]
    validation: dict[str, Any] = {"step": step, "val/tokens": 1024}
    for exit_layer in range(1, n_layers + 1):
        of_exit = loss + n_layers - exit_layer
        validation |= {
            f"val/loss/exit_{exit_layer:02d}": of_exit,
            f"val/ppl/exit_{exit_layer:02d}": math.exp(of_exit),
            f"val/agreement/exit_{exit_layer:02d}": exit_layer / n_layers,
        }
    return [row, validation]
