"""A run that goes on with another number of ranks sees every row once, in the order of a run that was never stopped."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY_TEXT, run_ranks
from training import rows, train

from train.trainer import LayerSkipTrainer

STEPS = 6


def record(rank: int, folder: Path, overrides: list[str], kill_in_step: int | None, log: Path) -> None:
    """Train, and write down each step's rows: what is in a run's batches, not what a loader says of itself."""

    def watch(trainer: LayerSkipTrainer) -> None:
        step = trainer.forward_backward_step

        def forward_backward_step(*, input_dict: Any, labels: Any, **rest: Any) -> Any:
            with (log / f"step-{trainer.step}-rank-{rank}.jsonl").open("a") as stream:
                for row in labels.tolist():
                    stream.write(json.dumps(row) + "\n")
            return step(input_dict=input_dict, labels=labels, **rest)

        trainer.forward_backward_step = forward_backward_step  # type: ignore[method-assign]

    train(rank, folder, overrides, kill_in_step=kill_in_step, change=watch)


def seen(log: Path) -> list[list[str]]:
    """The rows of each step, sorted: ranks share a step's rows in any order."""
    return [
        sorted(row for f in log.glob(f"step-{step}-rank-*.jsonl") for row in f.read_text().split("\n")[:-1])
        for step in range(1, STEPS + 1)
    ]


@pytest.fixture(params=["prepared", "stream"])
def overrides(request: pytest.FixtureRequest, tiny_run: list[str], tmp_path: Path) -> list[str]:
    options = [*tiny_run, f"train.steps={STEPS}", "checkpoint.every=2", "validation.every=100"]
    options += ["validation.final_tokens=64", "train.local_batch_size=2", "data.validation_documents=5"]
    if request.param == "prepared":
        return options
    folder = tmp_path / "set"
    folder.mkdir()
    for i in range(5):
        lines = [json.dumps({"text": f"{i} {j} {TINY_TEXT[100 * j : 100 * j + 150]}"}) for j in range(i, 500, 5)]
        (folder / f"train-{i}.jsonl").write_text("\n".join(lines))
    stream = ["data=c4", f"data.sources.c4.path=hf://{folder}", "data.sources.c4.subset=null", "data.stream_lanes=4"]
    options = [o for o in options if not o.startswith(("data=", "data.source="))]
    return [*options, *stream, "data.sources.c4.validation=null", "data.num_workers=0"]


@pytest.mark.parametrize(("before", "after"), [(2, 1), pytest.param(1, 4, marks=pytest.mark.slow)])
def test_no_row_is_lost_or_seen_twice(tmp_path: Path, overrides: list[str], before: int, after: int) -> None:
    for name in ("whole", "parts"):
        (tmp_path / f"{name}-log").mkdir()
    run_ranks(record, 1, tmp_path / "whole", overrides, None, tmp_path / "whole-log")
    run_ranks(record, before, tmp_path / "parts", overrides, 4, tmp_path / "parts-log")
    # Killed in step 4: the checkpoint is of step 2, and steps 3 and 4 are done again.
    for again in (tmp_path / "parts-log").glob("step-3-*"):
        again.unlink()
    run_ranks(record, after, tmp_path / "parts", overrides, None, tmp_path / "parts-log")
    assert seen(tmp_path / "parts-log") == seen(tmp_path / "whole-log")
    assert all(len(step) == 8 for step in seen(tmp_path / "whole-log"))
    counts = [row["train/tokens"] for row in rows(tmp_path / "parts") if "train/tokens" in row]
    assert counts == [8 * 32 * step for step in range(1, STEPS + 1)]
