"""FSDP2 on two gloo ranks, and a block that nobody runs."""

from pathlib import Path

import torch
from conftest import run_ranks
from training import build, full_state, train

from train.trainer import LayerSkipTrainer

OPTIONS = [
    "train.precision=fp32",
    "early_exit=all",
    "layer_dropout=exp",
    "layer_dropout.p_max=0.5",
    "train.steps=4",
    "checkpoint.every=2",
    "optimizer.eps=1e-4",  # rounding in gradients near zero must not decide the direction of a step
]


def skip_a_block_save_and_resume(rank: int, folder: Path, overrides: list[str]) -> None:
    before: dict[str, torch.Tensor] = {}

    def skip_layer_1(trainer: LayerSkipTrainer) -> None:
        before.update(full_state(trainer))
        plan = [None, torch.tensor([], dtype=torch.int64), None, None]
        trainer.dropout_plan = lambda t, batch_size: (plan, [1.0] * 4)  # type: ignore[method-assign]

    train(rank, folder, overrides, kill_in_step=3, change=skip_layer_1)
    resumed = build(rank, folder, overrides)
    resumed.checkpointer.load()
    assert resumed.step == 2
    loaded = full_state(resumed)
    for name, weight in before.items():
        assert torch.equal(loaded[name], weight) == name.startswith("layers.1."), name
    for optimizer in resumed.optimizers:
        for group in optimizer.param_groups:
            for name, p in zip(group["param_names"], group["params"], strict=True):
                assert optimizer.state[p]["step"] == (0 if name.startswith("layers.1.") else 2), name
    resumed.train()
    assert resumed.step == 4
    moved = "layers.1.attention.wo.weight"
    assert not torch.equal(full_state(resumed)[moved], before[moved])
    resumed.metrics_processor.close()


def test_a_block_nobody_runs(tmp_path: Path, tiny_run: list[str]) -> None:
    run_ranks(skip_a_block_save_and_resume, 2, tmp_path / "skipped", [*tiny_run, *OPTIONS])
