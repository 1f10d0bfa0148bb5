"""Keys for GPUs: compiled steps with few shapes, the allocator, 8-bit matrices and traces."""

import gzip
import json
import logging
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import compose_config, run_ranks, tiny_model
from training import train

from conf.strict import ConfigError
from models.row_sampling import Sampling
from models.spec import llama_config
from train import pretrain
from train.config import PretrainConfig
from train.cost.gpu import check_gpu
from train.gpu.allocator import NEW, OLD
from train.titan import trainer_config

CORPUS: Any = SimpleNamespace(tokenizer=SimpleNamespace(vocab_size=4096))
DROPOUT = ["layer_dropout=exp", "train.precision=fp32"]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says it has a GPU, an H100."""
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (9, 0))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA H100")


def chosen(*overrides: str) -> tuple[bool | None, Sampling]:
    config = compose_config(*DROPOUT, *overrides)
    return config.train.compile, config.layer_dropout.sampling


def test_a_cpu_runs_eager_with_the_papers_sampling(caplog: pytest.LogCaptureFixture) -> None:
    assert chosen() == (False, Sampling.bernoulli)
    assert chosen("train.compile=true") == (True, Sampling.stratified)
    assert chosen("layer_dropout.sampling=bernoulli") == (False, Sampling.bernoulli)
    assert not caplog.records


@pytest.mark.usefixtures("gpu")
def test_a_gpu_compiles_and_draws_few_shapes(caplog: pytest.LogCaptureFixture) -> None:
    assert chosen() == (True, Sampling.stratified)
    assert chosen("train.compile=false") == (False, Sampling.bernoulli)
    assert compose_config("train.precision=fp32", "layer_dropout.sampling=bernoulli").train.compile
    assert not caplog.records, "without dropout there is nothing to draw"
    with caplog.at_level(logging.WARNING):
        assert chosen("layer_dropout.sampling=bernoulli") == (True, Sampling.bernoulli)
    [record] = caplog.records
    assert re.match(
        r"layer_dropout\.sampling=bernoulli with train\.compile=true: .*compiled anew, up to three times",
        record.message,
    )
    assert "\n" not in record.message


def test_a_block_is_compiled_three_times_at_most() -> None:
    torch._dynamo.reset()
    seen = []

    def note(graph: torch.fx.GraphModule, inputs: Any) -> torch.fx.GraphModule:
        seen.append(len(inputs))
        return graph

    model = llama_config(tiny_model(n_layers=12)).build()
    model.init_states()
    for block in model.layers.values():
        block.compile(backend=note, fullgraph=True)
    compiled = []
    for rows in (8, 7, 6, 8, 2, 1, 5, 1):
        x = torch.zeros(rows, 16, 32, requires_grad=True)
        for block in model.layers.values():
            x = block(x, None, None)
        compiled.append(len(seen))
    assert compiled == [1, 2, 2, 2, 2, 3, 3, 3], "all rows, fewer, one alone; not once for each layer"


def environment_of_training(config: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment in which the trainer is built."""

    class Built(Exception):  # noqa: N818  # no error
        pass

    def stop(*_: Any) -> None:
        raise Built

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr("train.titan.trainer_config", stop)
    with pytest.raises(Built):
        pretrain._train(config, CORPUS, preemption=None)  # type: ignore[arg-type]
    return dict(os.environ)


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("true", {}, {NEW: "expandable_segments:True"}),
        ("false", {}, {}),
        ("true", {OLD: "max_split_size_mb:64"}, {OLD: "max_split_size_mb:64"}),
        ("true", {NEW: "max_split_size_mb:64"}, {NEW: "max_split_size_mb:64"}),
    ],
)
def test_segments_grow_unless_the_user_has_said_how(
    key: str, given: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (OLD, NEW):
        monkeypatch.setenv(name, "")  # put back afterwards
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    config = compose_config(*DROPOUT, f"train.expandable_segments={key}")
    found = environment_of_training(config, monkeypatch)
    assert {name: found[name] for name in (OLD, NEW) if name in found} == expected


FP8 = ["train.fp8=true", "train.precision=bf16"]


def refusal(*overrides: str, world_size: int = 1) -> str:
    with pytest.raises(ConfigError) as error:
        check_gpu(compose_config(*overrides, world_size=world_size))
    line = str(error.value)
    assert line.startswith("train.fp8=true: ")
    assert "\n" not in line
    return line


def test_fp8_is_refused_without_a_gpu() -> None:
    assert "no GPU here" in refusal(*FP8)


@pytest.mark.usefixtures("gpu")
def test_fp8_is_refused_where_it_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "needs train.precision=bf16" in refusal("train.fp8=true", "train.precision=fp32")
    assert "parallelism.tensor > 1" in refusal(*FP8, "parallelism.tensor=2", world_size=2)
    monkeypatch.setattr("train.cost.gpu.find_spec", lambda name: None)
    assert "pip install torchao" in refusal(*FP8)
    monkeypatch.setattr("train.cost.gpu.find_spec", lambda name: True)
    check_gpu(compose_config(*FP8))
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (8, 0))
    assert "compute capability 8.0, and 8.9 is needed" in refusal(*FP8)


def test_fp8_converts_the_matrices_of_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchao")
    from torchtitan.components.quantization import float8

    monkeypatch.setattr(float8, "has_cuda_capability", lambda *_: True)
    built = trainer_config(compose_config(*FP8), CORPUS)
    with torch.device("meta"):
        model = built.model_spec.model.build()
    model.verify_module_protocol()
    kinds = {name: type(m).__name__ for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    assert kinds.pop("lm_head") == "Linear"
    assert set(kinds.values()) == {"Float8Linear"}
    assert len(kinds) == 6 * 5, "of each block: query, key and value together, output, and three of the feed-forward"


def traced(rank: int, run: Path, overrides: list[str]) -> None:
    train(rank, run, [*overrides, "train.steps=6", "profiler.first_step=3", "profiler.n_steps=2"])


def test_a_trace_of_two_steps_can_be_read(tmp_path: Path, tiny_run: list[str]) -> None:
    run_ranks(traced, 1, tmp_path, tiny_run)
    files = sorted((tmp_path / "profiling").rglob("*.json.gz"))
    assert [f.name for f in files] == ["rank0_trace.json.gz"]
    for file in files:
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
        names = [str(event.get("name")) for event in events]
        steps = sorted({name for name in names if name.startswith("ProfilerStep")})
        assert steps == ["ProfilerStep#2", "ProfilerStep#3"], "torch counts from 0"
        assert [name for name in names if name.startswith(("aten::mm", "aten::addmm"))]
        assert [name for name in names if "attention" in name], "the forward of our blocks"


def test_a_trace_must_lie_in_the_run() -> None:
    with pytest.raises(ConfigError, match=r"profiler\.first_step=20: with profiler\.n_steps=2 .* by train\.steps=20"):
        compose_config("train.steps=20", "profiler.first_step=20")
    for key in ("first_step", "n_steps"):
        with pytest.raises(ConfigError, match=rf"profiler\.{key}=0: must be"):
            compose_config(f"profiler.{key}=0")
