"""Layer dropout against a three-line reference, its rates, and that dropped rows cost nothing."""

import pytest
import torch
from conftest import tiny_model
from torch import nn

from models.layer_dropout import kept_rows, run_on_kept_rows
from models.llama import LayerSkipLlama
from models.row_sampling import Sampling
from models.spec import llama_config


class Block(nn.Module):
    """x + f(x), counting the rows it is given."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        self.rows = 0
        self.calls = 0

    def forward(self, x: torch.Tensor, masks: None, positions: torch.Tensor | None) -> torch.Tensor:
        self.rows += len(x)
        self.calls += 1
        extra = 0.0 if positions is None else positions.unsqueeze(-1)
        return x + torch.tanh(self.linear(x) + extra)


@pytest.mark.parametrize("kept", [[0, 1, 2, 3], [1, 3], [2], []])
@pytest.mark.parametrize("scale", [1.0, 1.25])
def test_against_equation_1(kept: list[int], scale: float) -> None:
    torch.manual_seed(0)
    block = Block(8).double()
    x = torch.randn(4, 5, 8, dtype=torch.double, requires_grad=True)
    positions = torch.arange(20.0, dtype=torch.double).view(4, 5)

    m = torch.zeros(4, 1, 1, dtype=torch.double)
    m[kept] = scale
    reference = x + m * (block(x, None, positions) - x)

    block.rows = block.calls = 0
    rows = None if len(kept) == 4 else torch.tensor(kept, dtype=torch.int64)
    out = run_on_kept_rows(block, x, rows, positions, scale)
    assert block.rows == len(kept), "dropped rows are not computed"
    assert block.calls == (1 if kept else 0), "without a kept row the block is not called"
    torch.testing.assert_close(out, reference)

    grad = torch.randn_like(out)
    wanted = torch.autograd.grad(reference, [x, *block.parameters()], grad)
    if kept:
        got = torch.autograd.grad(out, [x, *block.parameters()], grad)
        for a, b in zip(got, wanted, strict=True):
            torch.testing.assert_close(a, b)
    else:
        assert out is x


def draw(p: float, sampling: Sampling, batch_size: int = 8, n: int = 2000, **where: int) -> list[torch.Tensor]:
    place = {"seed": 3, "micro_batch": 0, "layer": 5} | where
    out = []
    for step in range(n):
        rows = kept_rows(step=step, p=p, batch_size=batch_size, sampling=sampling, **place)
        out.append(torch.arange(batch_size) if rows is None else rows)
    return out


@pytest.mark.parametrize("sampling", [Sampling.bernoulli, Sampling.stratified])
@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
def test_every_row_is_kept_at_the_rate_asked_for(sampling: Sampling, p: float) -> None:
    n = 2000
    counts = torch.zeros(8)
    for rows in draw(p, sampling, n=n):
        assert rows.tolist() == sorted(set(rows.tolist()))
        counts[rows] += 1
    deviation = (p * (1 - p) / n) ** 0.5
    assert (counts / n - (1 - p)).abs().max() < 4.5 * deviation


def test_stratified_drops_floor_or_one_more() -> None:
    assert {8 - len(rows) for rows in draw(0.3, Sampling.stratified)} == {2, 3}
    assert {8 - len(rows) for rows in draw(0.25, Sampling.stratified)} == {2}
    assert len({8 - len(rows) for rows in draw(0.3, Sampling.bernoulli)}) > 4


def test_pure_function_of_its_place() -> None:
    def rows(**change: int) -> list[list[int]]:
        return [r.tolist() for r in draw(0.4, Sampling.bernoulli, n=30, **change)]

    assert rows() == rows()
    for change in ({"seed": 4}, {"micro_batch": 1}, {"layer": 6}):
        assert rows() != rows(**change)
    torch.manual_seed(123)
    assert rows() == rows(), "torch's generator is not touched"


def test_nothing_is_drawn_without_dropout() -> None:
    assert kept_rows(0, 0, 0, 0, 0.0, 4, Sampling.bernoulli) is None


def tiny_llama(**changes: int) -> LayerSkipLlama:
    torch.manual_seed(0)
    model = llama_config(tiny_model(**changes)).build()
    model.init_states()
    return model


def test_model_with_dropped_rows_equals_rows_alone() -> None:
    """Each row of the batch is as if it had run alone through the layers it keeps."""
    model = tiny_llama()
    tokens = torch.randint(96, (4, 16))
    kept = [None, torch.tensor([0, 2]), torch.tensor([], dtype=torch.int64), torch.tensor([2, 3])]
    out = model(tokens, exits=(0, 1, 3), kept_rows=kept).view(3, 4, 16, 96)
    for row in range(4):
        x = model.tok_embeddings(tokens[row : row + 1])
        exits = []
        for layer, block in enumerate(model.layers.values()):
            if kept[layer] is None or row in kept[layer]:
                x = block(x, None, None)
            if layer in (0, 1, 3):
                exits.append(model.lm_head(model.norm(x))[0])
        torch.testing.assert_close(out[:, row], torch.stack(exits))


def test_blocks_above_the_last_exit_are_not_run() -> None:
    model = tiny_llama()
    calls = []
    for name, block in model.layers.items():
        block.register_forward_hook(lambda *_, name=name: calls.append(name))
    model(torch.randint(96, (1, 4)), exits=(0, 1))
    assert calls == ["0", "1"]


def test_what_is_to_be_chosen_must_have_been() -> None:
    with pytest.raises(AssertionError, match="resolved"):
        draw(0.5, Sampling.auto)
