"""Drafts from the frequent tokens alone: which those are, what their head says, and that the text stays the same."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from test_batches import request, together
from test_decoding import CPU, decode, tiny, tokens

from conf.strict import ConfigError, register_schema
from data.prepared.shards import Shard, Tokens
from data.prepared.token_counts import token_counts
from eval.benchmark import benchmark
from eval.compare import compare
from eval.config import GenerateConfig
from eval.engine import load
from eval.engine.checkpoint import open_checkpoint
from eval.engine.decoding import Engine
from eval.engine.draft_vocabulary import draft_ids
from eval.engine.policy import (
    Autoregressive,
    ConfidenceStop,
    DraftModel,
    DynamicExit,
    EarlyExit,
    Policy,
    SelfSpeculative,
)
from eval.engine.sampling import Sampler
from eval.engine.sampling_options import SamplingOptions
from eval.exactness.compare_config import CompareConfig
from eval.generate import generate
from eval.measure.config import BenchmarkConfig

ROOT = Path(__file__).parent.parent
SOME = torch.tensor([0, 3, 4, 7, 8, 11, 12, 15, 19, 20, 23])
for name, schema in {"benchmark": BenchmarkConfig, "compare": CompareConfig, "generate": GenerateConfig}.items():
    register_schema(name, schema)


@pytest.mark.parametrize("tied", [False, True])
def test_its_logits_are_the_heads(tied: bool) -> None:
    model, x = tiny(draft_ids=SOME, tie_embeddings=tied), torch.randn(2, 3, 32, dtype=torch.float64)
    full, draft = model.logits(x), model.draft_logits(x)
    assert draft.shape == full.shape
    torch.testing.assert_close(draft[..., SOME], full[..., SOME])
    others = torch.ones(full.shape[-1], dtype=torch.bool).index_fill(0, SOME, False)
    assert (draft[..., others] == float("-inf")).all()
    assert torch.equal(tiny().draft_logits(x), tiny().logits(x))


POLICIES = [SelfSpeculative(1, 3), SelfSpeculative(3, 6), SelfSpeculative(2, 2, False), DraftModel(2, 3)]


@pytest.mark.parametrize("policy", [*POLICIES, ConfidenceStop(2, 5), DynamicExit()])
def test_the_text_is_the_full_models(policy: Policy) -> None:
    model, rng, accepted, missed = tiny(draft_ids=SOME), random.Random(0), 0, 0
    for _ in range(25):
        prompt, n = [rng.randrange(24) for _ in range(rng.randrange(1, 30))], rng.randrange(2, 30)
        rounds = decode(model, policy, prompt, n)
        assert tokens(rounds) == tokens(decode(tiny(), Autoregressive(), prompt, n))
        drafted = [token for r in rounds for token in (*r.tokens[: r.n_accepted], *r.rejected)]
        assert set(drafted) <= set(SOME.tolist())
        accepted += sum(r.n_accepted for r in rounds)
        missed += sum(r.tokens[-1] not in SOME for r in rounds)
    assert accepted > 20 < missed, "both must have been tried"


@pytest.mark.parametrize("compiled", [False, True])
def test_rows_of_a_batch_and_static_shapes(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.engine.passes.torch.compile", lambda call, **_: call)
    sampled = SamplingOptions(temperature=0.9, top_k=5, repetition_penalty=1.2, seed=3)
    requests = [request([i, 5, i + 1], 12, options) for i in range(3) for options in (None, sampled)]
    policy = SelfSpeculative(2, 3)
    alone = [together(Engine(tiny(draft_ids=SOME)), [one], policy, 1) for one in requests]
    found = together(Engine(tiny(draft_ids=SOME), None, 4, compiled=compiled), requests, policy, len(requests))
    assert [found[i] for i in range(len(requests))] == [one[0] for one in alone]


def test_early_exit_chooses_from_all() -> None:
    for start in range(24):
        some, every = (decode(m, EarlyExit(2), [start], 20) for m in (tiny(draft_ids=SOME), tiny()))
        assert tokens(some) == tokens(every)


def test_the_most_frequent_are_chosen(tmp_path: Path) -> None:
    assert draft_ids(tmp_path, 3, 6).tolist() == [0, 1, 2], "without counts those of the smallest numbers"
    np.save(tmp_path / "token_counts.npy", np.array([0, 5, 2, 9, 2, 2]))
    assert draft_ids(tmp_path, 3, 6).tolist() == [1, 2, 3], "of equals the first"
    with pytest.raises(ConfigError, match=r"machine\.draft_vocab=6: must be less than the vocabulary's 6 tokens"):
        draft_ids(tmp_path, 6, 6)
    with pytest.raises(ConfigError, match=r"token_counts\.npy: counts 6 tokens, the model has 7; remove it"):
        draft_ids(tmp_path, 3, 7)
    (tmp_path / "token_counts.npy").write_bytes(b"no array")
    with pytest.raises(ConfigError, match=r"token_counts\.npy: cannot be read .*; remove it to draft without it"):
        draft_ids(tmp_path, 3, 6)


def test_what_is_counted() -> None:
    def text(ids: list[int], *documents: list[int]) -> Tokens:
        return Tokens([Shard(np.array(ids, np.uint16), np.array(documents, np.int64))])

    plain, records = text([1, 1, 2, 5], [4, 0]), text([3, 4, 4, 3, 1], [3, 2], [5, 1])
    assert token_counts([plain], 6).tolist() == [0, 2, 1, 0, 0, 1]
    assert token_counts([plain, records], 6).tolist() == [0, 3, 1, 0, 1, 1], "of records the completions"


def test_from_training_to_decoding(trained: Path, tmp_path: Path) -> None:
    counts = np.load(trained / "token_counts.npy")
    model = open_checkpoint(trained).model(torch.float32, CPU, draft_vocab=16)
    assert counts.shape == (model.size.vocab_size,)
    assert model.draft_ids is not None
    assert counts[model.draft_ids].min() >= np.sort(counts)[-16]
    export = tmp_path / "export"
    done = subprocess.run(
        [sys.executable, "-m", "models.convert", f"source={trained}", f"output={export}"], cwd=ROOT, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert (export / "token_counts.npy").read_bytes() == (trained / "token_counts.npy").read_bytes()
    small = ["task.n_samples=2", "task.prompt_tokens=8", "task.max_new_tokens=16", "transformers=false"]
    keys = [f"checkpoint={export}", *small, "exit_layers=[2]", "num_speculations=[2]", "task.source=README.md"]
    with initialize_config_module("conf", version_base="1.3"):
        rows = benchmark(compose("benchmark", [*keys, "machine.draft_vocab=16", f"output={export}/benchmark.json"]))
    drafting = next(row for row in json.loads(json.dumps([row.as_json() for row in rows])) if row["num_speculations"])
    assert (drafting["draft_vocab"], drafting["identical_share"]) == (16, 1)
    loaded = load(export)
    assert loaded.model.draft_ids is not None, "as the fastest setting was measured"
    assert len(loaded.model.draft_ids) == 16
    told, page = "<b>draft_vocab</b> 16", tmp_path / "page.html"
    keys = [f"checkpoint={export}", "prompt=import", "max_new_tokens=4", f"output={page}"]
    with initialize_config_module("conf", version_base="1.3"):
        generate(compose("generate", [*keys, "exit_layer=2"]))
        assert told in page.read_text(encoding="utf8")
        generate(compose("generate", [*keys, "mode=autoregressive"]))
        assert "draft_vocab" not in page.read_text(encoding="utf8"), "nothing is drafted"
        compare(compose("compare", [*keys, "machine.draft_vocab=16"]))
        assert told in page.read_text(encoding="utf8")


def test_drawn_tokens_have_the_full_models_distribution() -> None:
    options, generator = SamplingOptions(temperature=1.0), torch.Generator().manual_seed(0)
    logits = torch.randn(3, 24, dtype=torch.float64, generator=generator)
    draft = torch.full_like(logits, float("-inf")).index_copy_(1, SOME, (logits * 0.5)[:, SOME])
    counts, p, n = torch.zeros(24, dtype=torch.float64), logits[0].softmax(-1), 8_000
    sampler = Sampler(options, CPU)
    for _ in range(n):
        token, q = sampler.draft(draft[0])
        assert q is not None
        ids, _, _ = sampler.accept(token, q[None], logits[:2])
        counts[ids[0]] += 1
    chi_square = ((counts - n * p) ** 2 / (n * p)).sum().item()
    assert chi_square < 23 + 5 * (2 * 23) ** 0.5, "23 degrees of freedom, five standard deviations"
