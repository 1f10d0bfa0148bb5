"""Perplexity by exit: against whole logits of transformers, against training's own validation, and cut with strides."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_TEXT
from harness_tasks import CONTEXT, write_checkpoint
from hydra import compose, initialize_config_module
from transformers import AutoModelForCausalLM

from conf.strict import ConfigError, register_schema
from data.batches.packing import IGNORE_INDEX, ConcatRows
from data.prepared.shards import Shard, Tokens
from eval.depth.perplexity_config import PerplexityConfig
from eval.depth.windows import Windows
from eval.engine.checkpoint import open_checkpoint
from eval.perplexity import perplexity

register_schema("perplexity", PerplexityConfig)

ROOT = Path(__file__).parent.parent


def call(*overrides: str) -> list[dict[str, Any]]:
    with initialize_config_module("conf", version_base="1.3"):
        return perplexity(compose("perplexity", list(overrides)))


def filled(rows: ConcatRows, row: int) -> tuple[list[int], list[int]]:
    inputs, labels = np.zeros(rows.seq_len, np.int64), np.full(rows.seq_len, IGNORE_INDEX)
    rows.fill(row, inputs, labels)
    return inputs.tolist(), labels.tolist()


@pytest.mark.parametrize("n_tokens", [2, 8, 9, 10, 17, 30])
@pytest.mark.parametrize("stride", [1, 3, 8])
def test_each_token_is_predicted_once_from_those_before_it(n_tokens: int, stride: int) -> None:
    tokens = Tokens([Shard(np.arange(100, 100 + n_tokens), np.array([[n_tokens, 0]]))])
    windows, predicted = Windows(tokens, 8, stride), []
    for row in range(len(windows)):
        inputs, labels = filled(windows, row)
        for i, label in enumerate(labels):
            if label != IGNORE_INDEX:
                assert inputs[i] == label - 1
                assert i >= min(8 - stride, label - 101)
                predicted.append(label)
    assert predicted == list(range(101, 100 + n_tokens))
    if stride == 8:
        rows = ConcatRows(tokens, 8)
        assert [filled(windows, i) for i in range(len(windows))] == [filled(rows, i) for i in range(len(rows))]
    assert filled(windows, len(windows))[1] == [IGNORE_INDEX] * 8


@pytest.mark.parametrize("stride", [CONTEXT, 20])
def test_against_whole_logits(stride: int, tmp_path: Path) -> None:
    checkpoint, text = write_checkpoint(tmp_path / "checkpoint", "bytes"), tmp_path / "text.txt"
    text.write_text(TINY_TEXT[:3000])
    given = [f"checkpoint={checkpoint}", f"source={text}", f"stride={stride}", f"output={tmp_path}/out.json"]
    rows = call(*given, "machine.dtype=float32", "batch_size=3")
    ids = torch.tensor(open_checkpoint(checkpoint).tokenizer.encode_document(TINY_TEXT[:3000]))
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    nats, agreeing, accepted = [0.0] * 4, [0.0] * 4, [0.0] * 4
    done = 1
    for start in range(0, len(ids) - 1, stride):
        window = ids[start : start + CONTEXT + 1]
        if start + len(window) <= done:
            break
        with torch.no_grad():
            out = model(window[None, :-1], output_hidden_states=True)
        logits = [model.lm_head(model.model.norm(h)) for h in out.hidden_states[1:4]] + [out.logits]
        new = slice(done - start - 1, None)
        last = logits[-1][0, new].argmax(-1)
        for i, exit_logits in enumerate(logits):
            here = exit_logits[0, new]
            nats[i] += torch.nn.functional.cross_entropy(here, window[1:][new], reduction="sum").item()
            agreeing[i] += (here.argmax(-1) == last).sum().item()
            accepted[i] += torch.minimum(here.softmax(-1), logits[-1][0, new].softmax(-1)).sum().item()
        done = start + len(window)
    n, n_bytes = len(ids) - 1, 3000 - len(open_checkpoint(checkpoint).tokenizer.decode([int(ids[0])]))
    assert [row["exit_layer"] for row in rows] == [1, 2, 3, 4]
    for i, row in enumerate(rows):
        assert row["tokens"] == n
        assert row["loss"] == pytest.approx(nats[i] / n, rel=1e-5)
        assert row["perplexity"] == pytest.approx(math.exp(nats[i] / n), rel=1e-4)
        assert row["bits_per_byte"] == pytest.approx(nats[i] / math.log(2) / n_bytes, rel=1e-5)
        assert row["agreement"] == pytest.approx(agreeing[i] / n, abs=1.5 / n)
        assert row["acceptance"] == pytest.approx(accepted[i] / n, rel=1e-5)
    assert len({row["loss"] for row in rows}) == 4
    assert json.loads((tmp_path / "out.json").read_text()) == rows
    assert (tmp_path / "out.png").stat().st_size > 0


def test_it_is_what_training_found(trained: Path, tmp_path: Path) -> None:
    last = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines() if "val/ppl" in line][-1]
    given = [f"checkpoint={trained}", f"output={tmp_path}/out.json", "machine.dtype=float32"]
    rows = call(*given, "max_tokens=256")
    assert rows[0]["tokens"] == last["val/tokens"]
    for row in rows:
        name = f"exit_{row['exit_layer']:02d}"
        assert row["loss"] == pytest.approx(last[f"val/loss/{name}"], rel=1e-3)
        assert row["bits_per_byte"] == pytest.approx(last[f"val/bpb/{name}"], rel=1e-3)
        assert row["acceptance"] == pytest.approx(last[f"val/acceptance/{name}"], rel=1e-3)
    assert [row["exit_layer"] for row in call(*given, "max_tokens=64", "exit_layers=[2]")] == [2, 4]


def test_records_stand_alone_as_in_training(tmp_path: Path, tiny_run: list[str]) -> None:
    lines = [line for line in TINY_TEXT.splitlines() if line.strip()][:800]
    pairs = [{"prompt": a[:40], "completion": b[:40]} for a, b in zip(lines[::2], lines[1::2], strict=True)]
    (tmp_path / "records.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    command = [sys.executable, "-m", "train.pretrain", *tiny_run, "data=prompt_completion", "train.steps=20"]
    command += [f"data.source={tmp_path}/records.jsonl", "validation.final_tokens=null", "train.precision=fp32"]
    run = tmp_path / "run"
    done = subprocess.run([*command, f"run_dir={run}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    last = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if "val/ppl" in line][-1]
    rows = call(f"checkpoint={run}", f"output={tmp_path}/out.json", "machine.dtype=float32", "batch_size=5")
    assert rows[-1]["tokens"] == last["val/tokens"], "of prompts nothing is predicted"
    assert rows[-1]["loss"] == pytest.approx(last["val/loss/exit_04"], rel=1e-4)
    fewer = call(f"checkpoint={run}", f"output={tmp_path}/few.json", "max_tokens=100", "batch_size=5")
    assert 50 < fewer[-1]["tokens"] < 150 < rows[-1]["tokens"]
    with pytest.raises(ConfigError, match="stride=8: the text is records of a prompt and a completion"):
        call(f"checkpoint={run}", f"output={tmp_path}/cut.json", "stride=8")


def test_what_cannot_be_measured(trained: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    for overrides, message in (
        (["seq_len=1000000"], "seq_len=1000000: must be at most the context's"),
        (["seq_len=8", "stride=9"], "stride=9: must be at most seq_len=8"),
        (["exit_layers=[0]"], r"exit_layers=0: must lie in 1\.\.4"),
        ([f"source={empty}"], "has 0 tokens, too few"),
        (["stride=0"], "stride=0: must be at least 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            call(f"checkpoint={trained}", f"output={tmp_path}/out.json", *overrides)
