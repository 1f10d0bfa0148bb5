"""FSDP2 on two gloo ranks: the same numbers as one process, and a block that nobody runs."""

from pathlib import Path

import torch
from conftest import run_ranks
from training import build, full_state, rows, train

from train.trainer import LayerSkipTrainer

EXACT = [
    "train.precision=fp32",
    "early_exit=all",
    "layer_dropout=exp",
    "layer_dropout.p_max=0.5",
    "train.steps=4",
    "checkpoint.every=2",
    "optimizer.eps=1e-4",  # rounding in gradients near zero must not decide the direction of a step
]


def repeat_masks_per_rank(trainer: LayerSkipTrainer) -> None:
    """Let one process drop what two ranks drop: both draw the same of their rows, which are every other one."""
    of_one_rank = trainer.dropout_plan

    def dropout_plan(t: int, batch_size: int) -> tuple[list[torch.Tensor | None] | None, list[float] | None]:
        kept, scales = of_one_rank(t, batch_size // 2)
        assert kept is not None
        return [k if k is None else torch.cat([2 * k, 2 * k + 1]).sort().values for k in kept], scales

    trainer.dropout_plan = dropout_plan  # type: ignore[method-assign]


def one_process(rank: int, tmp: Path, overrides: list[str]) -> None:
    options = [*overrides, *EXACT, "train.local_batch_size=4"]
    trainer = train(rank, tmp / "one", options, change=repeat_masks_per_rank)
    torch.save(full_state(trainer), tmp / "one.pt")


def two_ranks(rank: int, tmp: Path, overrides: list[str]) -> None:
    state = full_state(train(rank, tmp / "two", [*overrides, *EXACT, "train.local_batch_size=2"]))
    if rank == 0:
        torch.save(state, tmp / "two.pt")
    skip_a_block_save_and_resume(rank, tmp / "skipped", [*overrides, *EXACT])


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


def test_two_ranks_equal_one_and_a_block_nobody_runs(tmp_path: Path, tiny_run: list[str]) -> None:
    run_ranks(one_process, 1, tmp_path, tiny_run)
    run_ranks(two_ranks, 2, tmp_path, tiny_run)
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert len(one) == len(two) == 5
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            torch.testing.assert_close(a[key], b[key], rtol=2e-4, atol=1e-6, msg=lambda m, key=key: f"{key}: {m}")
    weights = [torch.load(tmp_path / f"{n}.pt") for n in ("one", "two")]
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-3, atol=2e-5)
