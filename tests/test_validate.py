"""Sums and metrics of validation against a naive computation from whole logits."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_model

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
