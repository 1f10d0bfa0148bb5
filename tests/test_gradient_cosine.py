"""train/gradient_cosine against the gradients of both parts of the loss, each on its own."""

from pathlib import Path

import pytest
import torch
from conftest import run_ranks
from training import build, rows, train

RECIPE = ["early_exit=rotational_pair", "early_exit.distillation.strength=0.5", "early_exit.rotation_period=3"]
RECIPE += [
    "train.precision=fp32",
    "train.steps=8",
    "checkpoint.every=100",
    "layer_dropout=exp",
    "layer_dropout.p_max=0.5",
]


def with_and_without(rank: int, tmp: Path, overrides: list[str]) -> None:
    for name, every in (("without", "null"), ("every_second", "2")):
        train(rank, tmp / name, [*overrides, *RECIPE, f"early_exit.gradient_cosine_every={every}"])
    by_hand(rank, tmp, [*overrides, *RECIPE, "early_exit.gradient_cosine_every=1"])


def by_hand(rank: int, tmp: Path, overrides: list[str]) -> None:
    """The second step's cosines from the whole gradient vectors of both parts."""
    trainer = build(rank, tmp / "hand", overrides)
    trainer.checkpointer.load()
    data = trainer.batch_generator(trainer.dataloader)
    trainer.step = 2
    model, batches = trainer.model_parts[0], [next(data) for _ in range(trainer.gradient_accumulation_steps)]
    trainer.forward_backward(iter(batches))
    found, weights = trainer.metrics_processor.gradient_cosine, trainer.weights
    assert sorted(weights) == [1, 3]
    parts = []
    for of_part in ({3: 1.0}, {1: 0.5, 3: 1.0}):
        trainer.optimizers.zero_grad()
        trainer.micro_batch, trainer.weights = 0, of_part
        trainer.accumulate(list(batches), torch.tensor(float(sum((b != -100).sum() for _, b in batches))))
        parts.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    last, whole = parts
    head = ["norm.weight", "lm_head.weight"]
    trunk = [n for n in whole if n.startswith(("tok", "layers.0.", "layers.1.")) and n in last]
    for name, parameters in (("head", head), ("trunk", trunk)):
        a = torch.cat([(whole[n] - last[n]).flatten() for n in parameters])
        b = torch.cat([last[n].flatten() for n in parameters])
        cosine = torch.nn.functional.cosine_similarity(a, b, dim=0).item()
        assert found[f"train/gradient_cosine/{name}"] == pytest.approx(cosine, rel=1e-4, abs=1e-6)
    trainer.metrics_processor.close()


def test_it_is_right_and_changes_nothing(tmp_path: Path, tiny_run: list[str]) -> None:
    run_ranks(with_and_without, 1, tmp_path, tiny_run)
    without, measured = rows(tmp_path / "without"), rows(tmp_path / "every_second")
    keys = [[k.rpartition("/")[2] for k in row if "cosine" in k] for row in measured]
    # Steps 1, 4 and 7 train layers 0 and 3, of which the first has no weight; a row of validation ends the list.
    assert keys == [[], ["trunk", "head"], [], [], [], ["trunk", "head"], [], ["trunk", "head"], []]
    assert without == [{k: v for k, v in row.items() if "cosine" not in k} for row in measured]
    assert all(-1 <= row[k] <= 1 for row in measured for k in row if "cosine" in k)
