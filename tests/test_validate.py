"""Sums and metrics of validation against a naive computation from whole logits."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_model
from live_memory import LiveMemory
from torch import nn

from models.spec import llama_config
from models.speculation import MOST_DRAFTS, head_cost, ideal_speedup
from train.monitoring.validation import exit_metrics, exit_sums


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
    metrics = exit_metrics(sums, layers, tiny_model(), None)

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
        accepted = torch.minimum(logit.softmax(-1), logits[-1].softmax(-1)).sum(-1)[valid].mean().item()
        assert metrics[f"val/acceptance/{name}"] == pytest.approx(accepted, rel=1e-5)
    assert metrics["val/agreement/exit_04"] == metrics["val/acceptance/exit_04"] == 1.0


def test_the_predicted_speedup_is_the_best_of_all_settings() -> None:
    size = tiny_model(n_layers=6)
    # Of 100 tokens: exits after 1, 3 and 6 layers accept 30, 80 and 100, and agree on 20, 10 and 100.
    sums = torch.tensor([9.0, 5.0, 3.0, 20.0, 10.0, 100.0, 30.0, 80.0, 100.0, 100.0, 400.0], dtype=torch.float64)
    metrics = exit_metrics(sums, [0, 2, 5], size, None)
    for how, chances in (("", {1: 0.3, 3: 0.8}), ("_greedy", {1: 0.2, 3: 0.1})):
        by_setting = {}
        for exit_layer, a in chances.items():
            for d in range(1, MOST_DRAFTS + 1):
                # The i-th draft counts if it and all before it are accepted.
                n = sum(math.prod([a] * i) for i in range(1, d + 1))
                speedup = ideal_speedup(n_layers=6, exit_layer=exit_layer, d=d, n=n, head=head_cost(size))
                by_setting[exit_layer, d] = speedup
        best = max(by_setting, key=lambda setting: by_setting[setting])
        found = metrics[f"val/predicted_exit_layer{how}"], metrics[f"val/predicted_num_speculations{how}"]
        assert found == best
        assert metrics[f"val/predicted_speedup{how}"] == pytest.approx(by_setting[best])
    assert metrics["val/predicted_num_speculations"] > metrics["val/predicted_num_speculations_greedy"] == 1
    alone = exit_metrics(torch.tensor([3.0, 100.0, 100.0, 100.0, 400.0], dtype=torch.float64), [5], size, None)
    assert not [key for key in alone if "predicted" in key], "no exit below the last was measured"


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


def test_memory_grows_by_the_states_of_an_exit_and_by_no_logits() -> None:
    """As training holds them: [B, T, D] of each exit. Logits are of a chunk, the last exit's and one other's."""
    model = llama_config(tiny_model(dim=64, n_layers=8, vocab_size=4096)).build()
    model.init_states()
    model._skip_lm_head = True
    batch = (torch.zeros(4, 64, dtype=torch.int64), torch.zeros(4, 64, dtype=torch.int64))
    peaks = []
    for layers, chunk in (([6, 7], 16), ([0, 1, 2, 3, 4, 5, 6, 7], 16), ([0, 1, 2, 3, 4, 5, 6, 7], 32)):
        with LiveMemory() as live:
            exit_sums(model, model.lm_head, [batch], layers, torch.ones(4096, dtype=torch.int64), chunk_tokens=chunk)
        peaks.append(live.peak)
    states, sums, chunk_of_logits = 4 * 256 * 64, 3 * 8 * 8, 4 * 16 * 4096
    assert peaks[1] - peaks[0] == pytest.approx(6 * states, abs=6 * sums + 4096)
    assert peaks[2] - peaks[1] == pytest.approx(3 * chunk_of_logits, rel=0.02)
