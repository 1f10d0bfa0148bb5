"""The chunked loss over exits against a naive loop: values and gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchtitan.config import CompileConfig

from train.recipe import early_exit_loss
from train.recipe.early_exit_loss import EarlyExitLoss

V, D, B, T = 23, 8, 3, 7


def naive(states: torch.Tensor, labels: torch.Tensor, head: nn.Module, weights: list[float], n: float) -> torch.Tensor:
    exits = states.view(len(weights), B * T, D)
    losses = [F.cross_entropy(head(x), labels.flatten(), reduction="sum") / n for x in exits]
    return torch.stack(losses)


@pytest.mark.parametrize("chunk_tokens", [1, 4, 21, 1000])
@pytest.mark.parametrize("weights", [[1.0], [0.3, 0.7], [0.1, 0.0, 0.2, 0.7]])
@pytest.mark.parametrize("ignored", ["none", "some", "all"])
@pytest.mark.parametrize("full_head", [1, 5, 64])
def test_against_a_loop_over_exits(
    monkeypatch: pytest.MonkeyPatch, chunk_tokens: int, weights: list[float], ignored: str, full_head: int
) -> None:
    monkeypatch.setattr(early_exit_loss, "FULL_HEAD", full_head)
    torch.manual_seed(0)
    # In fp32, because the loss is; the head in double would hide nothing.
    head = nn.Linear(D, V, bias=False)
    base = torch.randn(len(weights) * B, T, D, requires_grad=True)
    labels = torch.randint(V, (B, T))
    if ignored != "none":
        labels[torch.rand(B, T) < (0.4 if ignored == "some" else 2.0)] = -100
    n_tokens = torch.tensor(17)

    expected = naive(base * 2, labels, head, weights, 17.0)
    total = (expected * torch.tensor(weights)).sum()
    wanted = torch.autograd.grad(total, [base, head.weight])

    loss_fn = EarlyExitLoss.Config(chunk_tokens=chunk_tokens).build()
    loss_fn.set_lm_head(head)
    loss, parts = loss_fn(base * 2, labels, n_tokens, weights=weights)
    assert head.weight.grad is not None, "the head's gradient is taken in the forward"
    loss.backward()
    torch.testing.assert_close(loss, total.detach())
    torch.testing.assert_close(parts["exit_losses"], expected.detach())
    torch.testing.assert_close(base.grad, wanted[0])
    torch.testing.assert_close(head.weight.grad, wanted[1])


def test_without_gradients_only_values() -> None:
    head = nn.Linear(D, V, bias=False)
    loss_fn = EarlyExitLoss.Config(chunk_tokens=5).build()
    loss_fn.set_lm_head(head)
    with torch.no_grad():
        loss, _ = loss_fn(torch.randn(B, T, D), torch.randint(V, (B, T)), None)
    assert not loss.requires_grad
    assert head.weight.grad is None


class CountingHead(nn.Linear):
    """Notes how many tokens go through it in each call."""

    def __init__(self) -> None:
        super().__init__(D, V)
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.shape[:-1].numel())
        return super().forward(x)


def test_at_most_one_chunk_of_logits_exists() -> None:
    """The head never sees more tokens than the bound, and every token once per exit."""
    head = CountingHead()
    loss_fn = EarlyExitLoss.Config(chunk_tokens=6).build()
    loss_fn.set_lm_head(head)
    states = torch.randn(2 * B, T, D, requires_grad=True)
    loss_fn(states, torch.randint(V, (B, T)), torch.tensor(21), weights=[0.5, 0.5])
    assert max(head.seen) <= 6
    assert sum(head.seen) == 2 * B * T


@pytest.mark.parametrize("compiled", [False, True])
def test_tokens_without_a_label_do_not_go_through_the_head(compiled: bool) -> None:
    head = CountingHead()
    loss_fn = EarlyExitLoss.Config().build(compile_config=CompileConfig(enable=compiled, backend="eager"))
    loss_fn.set_lm_head(head)
    for n_labels, n_passed in ((5, 64), (70, 128), (150, 150)):
        labels = torch.full((1, 150), -100)
        labels[0, torch.randperm(150)[:n_labels]] = torch.randint(V, (n_labels,))
        head.seen.clear()
        loss_fn(torch.randn(2, 150, D, requires_grad=True), labels, torch.tensor(21), weights=[0.5, 0.5])
        assert head.seen == [n_passed, n_passed]


def test_last_exit_alone_is_plain_cross_entropy() -> None:
    torch.manual_seed(1)
    head = nn.Linear(D, V, bias=False)
    states, labels = torch.randn(B, T, D), torch.randint(V, (B, T))
    loss_fn = EarlyExitLoss.Config(chunk_tokens=8).build()
    loss_fn.set_lm_head(head)
    loss, _ = loss_fn(states, labels, torch.tensor(B * T), weights=[1.0])
    torch.testing.assert_close(loss, F.cross_entropy(head(states).flatten(0, 1), labels.flatten()))
