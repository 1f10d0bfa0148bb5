"""FSDP2 on gloo ranks: the same numbers as one process, and blocks that nobody has run."""

from pathlib import Path

import torch
from conftest import run_ranks
from training import build, full_state, rows, train

EXACT = ["train.precision=fp32", "early_exit=all", "layer_dropout=exp", "train.steps=4", "optimizer.eps=1e-4"]


def one_process(rank: int, tmp: Path, overrides: list[str], kept: str) -> None:
    trainer = train(rank, tmp / f"{kept}-1", overrides)
    torch.save(full_state(trainer), tmp / f"{kept}-1.pt")


def two_ranks(rank: int, tmp: Path, overrides: list[str]) -> None:
    for kept, options in DROPOUT.items():
        trainer = train(rank, tmp / f"{kept}-2", [*overrides, *EXACT, *options])
        state = full_state(trainer)
        if rank == 0:
            torch.save(state, tmp / f"{kept}-2.pt")
        dropped_first_layer(rank, tmp / f"{kept}-skipped", [*overrides, *EXACT, *options])


# Without dropout, ranks and micro-batches share the rows of a step in any way. With it, micro-batch m of a rank draws
# its own rows: the reference of one process has to take the same micro-batches, so only the first case can be compared.
DROPOUT = {"none": ["layer_dropout.p_max=0.0"]}


def dropped_first_layer(rank: int, folder: Path, overrides: list[str]) -> None:
    """Skip a block in every step on all ranks, save, resume; its weights must not have moved."""
    options = [*overrides, "train.steps=4", "checkpoint.every=2"]
    trainer = build(rank, folder, options)
    before = full_state(trainer)
    none = torch.tensor([], dtype=torch.int64)
    plan = [None, none, None, None]
    trainer.dropout_plan = lambda t, batch_size: (plan, [1.0] * 4)  # type: ignore[method-assign]
    trainer.train_step = _until(trainer, 3)  # type: ignore[method-assign]
    try:
        trainer.train()
    except StopIteration:
        pass
    trainer.metrics_processor.close()
    resumed = build(rank, folder, options)
    resumed.checkpointer.load()
    assert resumed.step == 2
    loaded = full_state(resumed)
    for name, weight in before.items():
        skipped = name.startswith("layers.1.")
        assert torch.equal(loaded[name], weight) == skipped, name
    steps = {
        name: int(state["step"])
        for optimizer in resumed.optimizers
        for group in optimizer.param_groups
        for name, p in zip(group["param_names"], group["params"], strict=True)
        for state in [optimizer.state[p]]
    }
    assert {count for name, count in steps.items() if name.startswith("layers.1.")} == {0}
    assert {count for name, count in steps.items() if not name.startswith("layers.1.")} == {2}
    resumed.train()
    assert resumed.step == 4
    assert not torch.equal(full_state(resumed)["layers.1.attention.wo.weight"], before["layers.1.attention.wo.weight"])
    resumed.metrics_processor.close()


def _until(trainer: object, step: int):
    original = trainer.train_step  # type: ignore[attr-defined]

    def train_step(data_iterator: object) -> None:
        if trainer.step == step:  # type: ignore[attr-defined]
            raise StopIteration
        original(data_iterator)

    return train_step


def test_two_ranks_equal_one_and_a_block_nobody_runs(tmp_path: Path, tiny_run: list[str]) -> None:
    run_ranks(one_process, 1, tmp_path, [*tiny_run, *EXACT, *DROPOUT["none"]], "none")
    run_ranks(two_ranks, 2, tmp_path, tiny_run)
    one, two = rows(tmp_path / "none-1"), rows(tmp_path / "none-2")
    assert len(one) == len(two) == 5
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            torch.testing.assert_close(a[key], b[key], rtol=2e-4, atol=1e-6, msg=lambda m, key=key: f"{key}: {m}")
    weights = [torch.load(tmp_path / f"none-{n}.pt") for n in (1, 2)]
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-3, atol=2e-5)
