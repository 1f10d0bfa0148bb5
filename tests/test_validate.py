"""Sums and metrics of validation against a naive computation from whole logits."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_model
from live_memory import LiveMemory
from torch import nn

from models.spec import llama_config
from train.validate import exit_metrics, exit_sums


def test_against_whole_logits() -> None:
    torch.manual_seed(0)
    model = llama_config(tiny_model()).build()
    model.init_states()
    batches = [(torch.randint(96, (2, 16)), torch.randint(96, (2, 16))) for _ in range(3)]
    batches[-1][1][1] = -100
    token_bytes = torch.randint(1, 5, (96,))
    layers = [0, 2, 3]
    with torch.no_grad():
        exits = [[model(inputs, exits=(layer,)) for layer in layers] for inputs, _ in batches]
    labels = torch.cat([labels.flatten() for _, labels in batches])
    valid = labels != -100
    logits = [torch.cat([e[i].flatten(0, 1) for e in exits]) for i in range(3)]

    model._skip_lm_head = True
    sums = exit_sums(model, model.lm_head, batches, layers, token_bytes, chunk_tokens=7)
    metrics = exit_metrics(sums, layers, None)

    assert metrics["val/tokens"] == valid.sum() == 80
    for layer, logit in zip(layers, logits, strict=True):
        name = f"exit_{layer + 1:02d}"
        loss = F.cross_entropy(logit, labels, ignore_index=-100).item()
        assert metrics[f"val/loss/{name}"] == pytest.approx(loss, rel=1e-5)
        assert metrics[f"val/ppl/{name}"] == pytest.approx(math.exp(loss), rel=1e-5)
        bits = loss * 80 / math.log(2) / token_bytes[labels[valid]].sum().item()
        assert metrics[f"val/bpb/{name}"] == pytest.approx(bits, rel=1e-5)
        agree = (logit.argmax(-1) == logits[-1].argmax(-1))[valid].float().mean().item()
        assert metrics[f"val/agreement/{name}"] == pytest.approx(agree)
    assert metrics["val/agreement/exit_04"] == 1.0


def sums_of_stacked_states(
    model: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]], layers: list[int], chunk_tokens: int
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Nats and agreements from the states of all exits at once, in the same chunks."""
    nats, agreeing = [torch.zeros((), dtype=torch.float64) for _ in layers], torch.zeros(len(layers))
    for inputs, labels in batches:
        targets = labels.flatten()
        states = model(inputs, exits=tuple(layers)).reshape(len(layers), targets.numel(), -1)
        choices = []
        for x in range(len(layers)):
            logits = [
                model.lm_head(states[None, x, start : start + chunk_tokens])[0]
                for start in range(0, len(targets), chunk_tokens)
            ]
            for chunk, some in zip(logits, targets.split(chunk_tokens), strict=True):
                nats[x] += F.cross_entropy(chunk, some, reduction="sum", ignore_index=-100)
            choices.append(torch.cat(logits).argmax(-1))
        agreeing += torch.stack([((c == choices[-1]) & (targets != -100)).sum() for c in choices])
    return nats, agreeing


@pytest.mark.parametrize("layers", [[0, 1, 2, 3, 4, 5], [1, 5], [5]])
def test_exit_by_exit_gives_the_bits_of_all_exits_at_once(layers: list[int]) -> None:
    torch.manual_seed(1)
    model: nn.Module = llama_config(tiny_model(n_layers=6)).build()
    model.init_states()
    model._skip_lm_head = True
    batches = [(torch.randint(96, (3, 16)), torch.randint(96, (3, 16))) for _ in range(2)]
    batches[0][1][2, 5:] = -100
    with torch.no_grad():
        nats, agreeing = sums_of_stacked_states(model, batches, layers, 11)
    sums = exit_sums(model, model.lm_head, batches, layers, torch.ones(96, dtype=torch.int64), chunk_tokens=11)
    assert sums[: len(layers)].tolist() == [float(n) for n in nats]
    assert sums[len(layers) : 2 * len(layers)].tolist() == agreeing.tolist()


def test_memory_does_not_grow_with_the_number_of_exits() -> None:
    model = llama_config(tiny_model(dim=64, n_layers=8)).build()
    model.init_states()
    model._skip_lm_head = True
    batch = (torch.zeros(4, 64, dtype=torch.int64), torch.zeros(4, 64, dtype=torch.int64))
    peaks = []
    for layers in ([6, 7], [0, 1, 2, 3, 4, 5, 6, 7]):
        with LiveMemory() as live:
            exit_sums(model, model.lm_head, [batch], layers, torch.ones(96, dtype=torch.int64), chunk_tokens=16)
        peaks.append(live.peak)
    choices, sums = 4 * 256, 2 * 8
    assert peaks[1] - peaks[0] <= 6 * (choices + sums)
    assert 6 * (choices + sums) < 4 * 256 * 64, "the states of one exit are more than all that may grow"
