"""Bad steps are skipped by all ranks alike, written down with their rows, and too many stop the run."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import compose_config, run_ranks
from training import full_state, rows, train

from data.batches.packing import IGNORE_INDEX
from data.corpus import prepare
from data.training import training_loader
from train.errors import TrainingError
from train.resilience.bad_steps import BadSteps, BadStepsConfig
from train.trainer import LayerSkipTrainer

GOOD: dict[str, Any] = {"loss": 3.0, "grad_norm": 1.0, "exit_layer": 4, "exit_loss": 3.0}


def judged(steps: BadSteps, n: int, first: int = 1, seed: int = 0, **changes: Any) -> list[str | None]:
    noise = np.random.default_rng(seed).normal(0, 0.1, n)
    return [steps.judge(first + i, **GOOD | {"exit_loss": 3.0 + float(noise[i])} | changes) for i in range(n)]


def test_what_is_not_finite_is_bad_from_the_first_step_on() -> None:
    steps = BadSteps(BadStepsConfig(spike_sigma=None))
    for number in (math.nan, math.inf, -math.inf):
        assert steps.judge(1, **GOOD | {"loss": number}) == "the loss is not finite"
        assert steps.judge(2, **GOOD | {"exit_loss": number}) == "the loss is not finite"
        assert steps.judge(3, **GOOD | {"grad_norm": number}) == "the gradient is not finite"
    assert steps.judge(4, **GOOD | {"loss": 1e30, "exit_loss": 1e30}) is None, "no spikes without spike_sigma"
    assert (steps.total, steps.losses) == (9, {4: [1e30]})


def test_a_spike_is_far_above_the_window() -> None:
    steps = BadSteps(BadStepsConfig(spike_sigma=6.0, window=40))
    assert steps.limit(4) == math.inf, "nothing to compare with"
    assert judged(steps, 200) == [None] * 200
    assert len(steps.losses[4]) == 40
    assert steps.limit(4) == pytest.approx(3.0 + 6 * 0.1, abs=0.2)
    assert steps.judge(201, **GOOD | {"exit_loss": 4.5}) == (
        f"the loss after 4 layers is a spike, above {steps.limit(4):.4g}"
    )
    assert len(steps.losses[4]) == 40, "a spike does not move the window"
    assert steps.judge(202, **GOOD | {"exit_loss": 0.5}) is None, "below is no spike"
    assert steps.judge(203, **GOOD | {"exit_layer": 1, "exit_loss": 9.0}) is None, "another exit has other losses"


def test_a_smooth_curve_is_no_reason_to_skip() -> None:
    steps = BadSteps(BadStepsConfig())
    assert judged(steps, 50, exit_loss=3.0) == [None] * 50
    assert steps.judge(51, **GOOD | {"exit_loss": 3.5}) is None
    assert steps.judge(52, **GOOD | {"exit_loss": 3.7}) is not None


def test_too_many() -> None:
    steps = BadSteps(BadStepsConfig(window=32, most=2))
    for step in (1, 2, 33, 34):
        judged(steps, 1, first=step, loss=math.nan)
        assert not steps.too_many, "2 of the last 32"
    judged(steps, 1, first=35, loss=math.nan)
    assert steps.too_many
    assert (steps.recent, steps.total) == ([33, 34, 35], 5)


def test_its_state_goes_on_exactly() -> None:
    whole, first = BadSteps(BadStepsConfig()), BadSteps(BadStepsConfig())
    judged(whole, 60)
    judged(first, 60)
    for steps in (whole, first):
        judged(steps, 1, first=61, loss=math.nan)
    second = BadSteps(BadStepsConfig(), json.loads(json.dumps(first.state())))
    assert judged(whole, 30, first=62, seed=1) == judged(second, 30, first=62, seed=1)
    assert whole.state() == second.state()


def test_options_are_checked() -> None:
    for options, message in (
        ({"spike_sigma": 0.0}, r"bad_steps\.spike_sigma=0\.0: must be null or a number above 0"),
        ({"spike_sigma": math.nan}, r"bad_steps\.spike_sigma=nan"),
        ({"window": 31}, r"bad_steps\.window=31: must be at least 32"),
        ({"most": -1}, r"bad_steps\.most=-1: must be at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            BadStepsConfig(**options)  # type: ignore[arg-type]


def test_origins_name_the_rows_of_a_batch(tiny_run: list[str]) -> None:
    config = compose_config(*tiny_run)
    corpus = prepare(config.data)
    loaders = [
        training_loader(corpus, config.data, seq_len=32, batch_size=2, seed=0, rank=r, world_size=2) for r in range(2)
    ]
    iterators = [iter(loader) for loader in loaders]
    for _ in range(3):
        batches = [next(iterator) for iterator in iterators]
    assert loaders[0].position == 12
    origins = loaders[0].origins(8, 4)
    assert [origin["row"] for origin in origins] == [8, 9, 10, 11]
    tokens = corpus.sources[0].content
    for i, origin in enumerate(origins):
        inputs, labels = batches[i % 2][0]["input"][i // 2], batches[i % 2][1][i // 2]
        window = tokens.read(origin["index"] * 32, origin["index"] * 32 + 33)  # type: ignore[union-attr]
        n = int((labels != IGNORE_INDEX).sum())
        assert (origin["source"], origin["epoch"]) == (0, 0)
        assert inputs[:n].tolist() == window[:n].tolist()


OPTIONS = ["early_exit=all", "train.steps=8", "checkpoint.every=2", "validation.every=8", "checkpoint.keep=0"]


def spoil(rank: int, on: dict[int, float]) -> Callable[[LayerSkipTrainer], None]:
    """At these steps one gradient of rank 1 (or of the only rank) is multiplied by a number."""

    def change(trainer: LayerSkipTrainer) -> None:
        original = trainer.forward_backward

        def forward_backward(data_iterator: Any) -> torch.Tensor:
            loss = original(data_iterator)
            if trainer.step in on and rank == trainer.parallel_dims.world_size - 1:
                weight = trainer.model_parts[0].get_parameter("layers.1.attention.wo.weight")
                assert weight.grad is not None
                weight.grad._local_tensor.mul_(on[trainer.step])  # type: ignore[attr-defined]
            return loss

        trainer.forward_backward = forward_backward  # type: ignore[method-assign]

    return change


def skipped(rank: int, tmp: Path, overrides: list[str]) -> None:
    overrides = [*overrides, *OPTIONS]
    bad = {3: math.nan, 4: math.inf}
    before: dict[str, torch.Tensor] = {}

    def watch(trainer: LayerSkipTrainer) -> None:
        spoil(rank, bad)(trainer)
        original = trainer.train_step

        def train_step(data_iterator: Any) -> None:
            before.update(full_state(trainer)) if trainer.step == 3 else None
            original(data_iterator)
            if trainer.step in (3, 4, 5):
                after = full_state(trainer)
                assert all(torch.equal(after[k], before[k]) for k in after) == (trainer.step in bad)

        trainer.train_step = train_step  # type: ignore[method-assign]

    trainer = train(rank, tmp / "whole", overrides, change=watch)
    assert trainer.bad_steps.recent == [3, 4]
    train(rank, tmp / "killed", overrides, change=spoil(rank, bad), kill_in_step=7)
    again = train(rank, tmp / "killed", overrides, change=spoil(rank, bad))
    assert again.bad_steps.state() == trainer.bad_steps.state()
    few = [*overrides, "bad_steps.most=2"]
    with pytest.raises(TrainingError) as error:
        train(rank, tmp / "stopped", few, change=spoil(rank, dict.fromkeys(range(3, 9), math.nan)))
    assert str(error.value) == (
        "step 5: the gradient is not finite, as in 3 of the last 128 steps, more than bad_steps.most=2; go on from step"
        " 2 with a lower optimizer.lr or a longer warm-up, or look at the rows in bad_steps.jsonl"
    )


@pytest.mark.parametrize("world_size", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_bad_steps_are_skipped_by_all(world_size: int, tmp_path: Path, tiny_run: list[str]) -> None:
    run_ranks(skipped, world_size, tmp_path, tiny_run)
    whole = rows(tmp_path / "whole")
    assert whole == rows(tmp_path / "killed"), "bitwise, the skipped steps too"
    by_step = {row["step"]: row for row in whole if "train/tokens" in row}
    assert [by_step[step]["train/bad_steps"] for step in range(1, 9)] == [0, 0, 1, 2, 2, 2, 2, 2]
    assert [step for step in by_step if "train/objective" not in by_step[step]] == [3, 4]
    assert [by_step[step]["train/tokens"] for step in (1, 8)] == [256, 2048], "the data goes on"
    assert [row["step"] for row in whole if "bad_step/objective" in row] == [3, 4]
    assert "NaN" not in (tmp_path / "whole" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in (tmp_path / "killed" / "bad_steps.jsonl").read_text().splitlines()]
    assert [(line["step"], line["why"]) for line in lines] == [(n, "the gradient is not finite") for n in (3, 4)]
    assert [row["row"] for row in lines[0]["rows"]] == list(range(16, 24))
    assert {row["source"] for row in lines[0]["rows"]} == {"text"}
    steps = sorted(int(folder.name[5:]) for folder in (tmp_path / "whole" / "checkpoint").iterdir())
    assert steps == [2, 5, 6, 8], "that of step 4, which was skipped, is written after the next good one"
    assert [folder.name for folder in (tmp_path / "stopped" / "checkpoint").iterdir()] == ["step-2"]
