"""What a line of training metrics says: utilisation, gradient norms by layer, schedules, checkpoints' seconds."""

import json
import math
import time
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from conftest import compose_config, run_ranks
from training import train

from conf.metrics_file import read_metrics
from models.flops import flops_per_token
from train import run_dir
from train.monitoring import metrics
from train.monitoring.checkpoint_clock import CheckpointClock
from train.monitoring.layer_gradients import LayerGradients
from train.monitoring.metrics import known_peak
from train.monitoring.report import summary
from train.monitoring.schedule import MOST, schedule_metrics
from train.recipe.dropout_schedule import dropout_probability
from train.recipe.exit_weights import exit_weights

PEAK = 1e12
OPTIONS = [
    "early_exit=rotational",
    "early_exit.rotation_period=3",
    "layer_dropout=exp",
    "train.steps=12",
    "train.log_every=5",
    "checkpoint.every=4",
    "validation.every=6",
]


def test_the_peak_of_a_device() -> None:
    assert known_peak("cpu", "cpu", 312e12) is None
    assert known_peak("cuda", "NVIDIA GeForce RTX 9090", 312e12) is None, "torchtitan's guess for what it does not know"
    assert known_peak("cuda", "NVIDIA A100-SXM4-80GB", 312e12) == 312e12
    assert known_peak("cuda", "NVIDIA H200", 989e12) == 989e12


def with_a_peak(rank: int, folder: Path, overrides: list[str]) -> None:
    with patch.object(metrics, "known_peak", lambda *_: PEAK):
        trainer = train(rank, folder, overrides)
    trainer.checkpointer.close()


def test_a_run_on_two_ranks(tmp_path: Path, tiny_run: list[str]) -> None:
    words = [*tiny_run, *OPTIONS]
    run_ranks(with_a_peak, 2, tmp_path / "run", words)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    config = compose_config(f"run_dir={tmp_path}", *words, world_size=2)
    lines = {row["step"]: row for row in rows if "train/objective" in row}
    # Lines: the first and the last step, each fifth, and those of checkpoints, which have no norms by layer.
    by_layer = {step: sorted(key for key in row if "layer_grad_norm" in key) for step, row in lines.items()}
    names = [f"train/layer_grad_norm/layer_{n:02d}" for n in range(1, 5)] + ["train/layer_grad_norm/rest"]
    assert by_layer == {step: names if step in (1, 5, 10, 12) else [] for step in (1, 4, 5, 8, 10, 12)}
    for step in (1, 5, 10, 12):
        squares = sum(lines[step][name] ** 2 for name in names)
        assert squares == pytest.approx(lines[step]["train/grad_norm"] ** 2, rel=1e-5)
    kept = [1 - dropout_probability(config.layer_dropout, layer, 0, 4, 12) for layer in range(4)]
    last = 0
    for step, row in sorted(lines.items()):
        exits = [tuple(exit_weights(config.early_exit, t, 4, 12)) for t in range(last, step)]
        flops = [flops_per_token(config.model, 32, kept, of_step) for of_step in exits]
        speed = row["train/tokens_per_second_per_device"]
        assert speed == row["train/tokens_per_second"] / 2
        if step != 8:  # the clock begins anew after a validation, which there is in step 6
            assert row["train/mfu"] * PEAK / speed == pytest.approx(sum(flops) / len(flops), rel=1e-6)
        assert row["train/active_exits"] == len(exits[-1])
        last = step
    waited = {row["step"]: row["train/checkpoint_seconds"] for row in rows if "train/checkpoint_seconds" in row}
    assert set(waited) == {5, 10}, "in the line after a checkpoint"
    assert all(seconds > 0.001 for seconds in waited.values())
    assert all("train/checkpoint_write_seconds" in row for row in rows if row["step"] in waited)
    validations = [row for row in rows if "val/tokens" in row]
    assert [row["step"] for row in validations] == [6, 12]
    assert all(schedule_metrics(config, row["step"]).items() <= row.items() for row in validations)
    assert not any("train/dropout/layer_01" in row for row in rows if row not in validations)


def test_norms_by_layer() -> None:
    named = [
        (name, torch.nn.Parameter(torch.zeros(size)))
        for name, size in (
            ("tok_embeddings.weight", (3, 2)),
            ("layers.0.attention.wq.weight", (2, 2)),
            ("layers.0._checkpoint_wrapped_module.attention_norm.weight", (2,)),
            ("layers.11.feed_forward.w1.weight", (2, 2)),
            ("layers.5.feed_forward.w1.weight", (2, 2)),
        )
    ]
    for i, (_, parameter) in enumerate(named[:4], 1):
        parameter.grad = torch.full_like(parameter, float(i))
    layers = LayerGradients(12)
    assert layers.norms() == {}
    layers.measure(named)
    norms = layers.norms()
    assert norms["train/layer_grad_norm/layer_01"] == pytest.approx(math.sqrt(4 * 4 + 2 * 9), rel=1e-5)
    assert norms["train/layer_grad_norm/layer_12"] == 8.0
    assert norms["train/layer_grad_norm/layer_06"] == 0.0, "a block that every row has skipped has no gradient"
    assert norms["train/layer_grad_norm/rest"] == pytest.approx(math.sqrt(6), rel=1e-5)
    assert len(norms) == 13
    assert layers.norms() == {}


def test_schedules_are_those_of_the_step() -> None:
    words = ["layer_dropout=exp_scratch", "early_exit=rotational", "early_exit.rotation_period=2", "train.steps=5000"]
    config = compose_config("run_dir=x", *words, "validation.every=4")
    n_layers = config.model.n_layers
    found = schedule_metrics(config, 8)
    for layer in range(n_layers):
        p = dropout_probability(config.layer_dropout, layer, 7, n_layers, 5000)
        assert found[f"train/dropout/layer_{layer + 1:02d}"] == pytest.approx(p, rel=1e-5)
        weights = [exit_weights(config.early_exit, t, n_layers, 5000).get(layer, 0.0) for t in (4, 5, 6, 7)]
        assert found[f"train/exit_weight/exit_{layer + 1:02d}"] == pytest.approx(sum(weights) / 4, rel=1e-5)
    weights = [value for name, value in found.items() if "exit_weight" in name]
    assert sum(weights) == pytest.approx(1.0, rel=1e-5)
    with patch("train.recipe.exit_weights.exit_weights", wraps=exit_weights) as asked:
        schedule_metrics(compose_config("run_dir=x", *words, "validation.every=4000"), 4000)
    assert asked.call_count == MOST


def test_the_clock_of_checkpoints() -> None:
    clock = CheckpointClock()
    assert clock.take() == {}
    begun = time.perf_counter()
    with clock.waiting():
        time.sleep(0.02)
    assert 0.02 <= clock.take()["train/checkpoint_seconds"] < 1
    clock.written(begun)
    assert clock.take()["train/checkpoint_write_seconds"] >= 0.02
    assert clock.take() == {}


def test_a_start_says_from_where_it_really_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "starts.jsonl"
    path.write_text('{"from_step": 0, "host": "a"}\n{"from_step": 20, "host": "b"}\n')
    (tmp_path / "metrics.jsonl").write_text('{"step": 10}\n{"step": 20}\n')
    run_dir.goes_on_from(tmp_path, 10)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"from_step": 0, "host": "a"},
        {"from_step": 10, "host": "b"},
    ]
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 10}]


def test_the_summary_of_a_run_from_before_acceptance_was_measured(tmp_path: Path) -> None:
    row = {"step": 2, "val/tokens": 9.0} | {f"val/{key}/exit_01": 0.5 for key in ("loss", "ppl", "bpb", "agreement")}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    table = summary(tmp_path, {"gzip_bits_per_byte": 1.0, "xz_bits_per_byte": 1.0}).splitlines()
    assert table[1].split() == ["1", "0.5000", "0.5", "1.000", "0.5000", "50.0%", "nan%"]
