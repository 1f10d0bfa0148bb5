"""train.benchmark: its arms train the same thing, its predictions and memory are right, and it writes what it says."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_model

from train.cost.benchmark_arms import PLAIN, Arm, Runner, arms, exit_layers
from train.cost.benchmark_config import TrainBenchmarkConfig

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")


def config(**options: Any) -> TrainBenchmarkConfig:
    sizes: dict[str, Any] = {
        "model": tiny_model(),
        "seq_len": 16,
        "batch_size": 4,
        "loss_chunk_tokens": 16,
        "rounds": 1,
        "warmup": 1,
    }
    return TrainBenchmarkConfig(output="x.json", **sizes | options)


def gradients(arm: Arm, recompute: bool = False) -> dict[str, torch.Tensor]:
    runner = Runner(config(), arm, recompute, CPU)
    runner.step(0)
    return {n.replace("_checkpoint_wrapped_module.", ""): p.grad for n, p in runner.model.named_parameters()}


@pytest.mark.parametrize("recompute", [False, True])
def test_one_exit_without_dropout_is_plain(recompute: bool) -> None:
    plain, ours = gradients(Arm(PLAIN), recompute), gradients(Arm("EE"), recompute)
    assert plain.keys() == ours.keys()
    for name, grad in plain.items():
        torch.testing.assert_close(ours[name], grad, rtol=1e-4, atol=1e-7)


def test_the_arms() -> None:
    found = arms(config(model=tiny_model(n_layers=12)))
    assert [(a.name, a.n_exits, a.p_max) for a in found] == [
        ("plain", 1, 0.0),
        ("LD", 1, 0.2),
        ("LD", 1, 0.5),
        ("EE", 1, 0.0),
        ("EE", 2, 0.0),
        ("EE", 3, 0.0),
        ("EE", 12, 0.0),
        ("EE+KL", 2, 0.0),
        ("LD+EE", 2, 0.2),
        ("LD+EE", 2, 0.5),
    ]
    assert exit_layers(1, 12) == (11,)
    assert exit_layers(3, 12) == (3, 7, 11)
    assert exit_layers(12, 12) == tuple(range(12))


def test_a_teacher_costs_at_most_a_chunk_of_logits() -> None:
    ours, taught = (Runner(config(), Arm("EE", n_exits=2, taught=t), False, CPU) for t in (False, True))
    chunk = 16 * 96 * 4
    assert taught.peak_bytes(0) <= ours.peak_bytes(0) + chunk + 1024
    assert taught.step(0).flops == ours.step(0).flops
    grads = [[p.grad for p in runner.model.parameters()] for runner in (ours, taught)]
    assert not torch.equal(grads[0][0], grads[1][0])


def test_predictions_are_of_the_rows_that_were_kept() -> None:
    runner = Runner(config(), Arm("LD", p_max=0.5), False, CPU)
    seen: list[int] = []
    for block in runner.model.layers.values():
        block.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    plain = Runner(config(), Arm(PLAIN), False, CPU).step(0).flops
    step = runner.step(3)
    assert 4 <= len(seen) + 4 <= 8
    head = 3 * 2 * 32 * 96
    assert (step.flops - head) / (plain - head) == pytest.approx(sum(seen) / 16)


def test_memory_counts_allocations() -> None:
    runner = Runner(config(), Arm(PLAIN), False, CPU)
    peak = runner.peak_bytes(0)
    n_parameters = sum(p.numel() for p in runner.model.parameters())
    assert peak > 4 * n_parameters, "the gradients, and the activations of the last block"
    assert runner.peak_bytes(1) == pytest.approx(peak, rel=0.01)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "train.benchmark", *words], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    words = ["model=llama_debug", "seq_len=32", "batch_size=4", "loss_chunk_tokens=64", "rounds=2", "machine.threads=1"]
    done = run(f"output={tmp_path}/rows.json", *words, "n_exits=[1,6]", "p_max=[0.5]", "checkpointing=[full]")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [r["arm"] for r in rows] == ["plain", "LD", "EE", "EE", "EE+KL", "LD+EE"]
    assert {r["checkpointing"] for r in rows} == {"full"}
    plain, dropped, one, every, taught, both = rows
    assert taught["predicted_ratio"] == every["predicted_ratio"], "a teacher costs no matrix product"
    assert plain["predicted_ratio"] == one["predicted_ratio"] == 1.0
    assert dropped["predicted_ratio"] < 1.0 < both["predicted_ratio"] < every["predicted_ratio"]
    assert plain["extra_elements_per_BTD"] == 0.0
    assert every["peak_bytes"] > one["peak_bytes"]
    wrong = run(f"output={tmp_path}/rows.json", "loss_chunk_tokens=100")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: loss_chunk_tokens=100: must divide")
