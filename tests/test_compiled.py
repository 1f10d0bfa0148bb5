"""Compiled passes of static shapes write what eager ones write; on a GPU, as far as shapes and devices tell."""

import random
from pathlib import Path

import pytest
import torch
from conftest import tiny_model
from test_batches import request, together
from test_decoding import tiny
from test_parity_hf import our_model
from torch._subclasses.fake_tensor import FakeTensorMode

from eval.engine import passes
from eval.engine.decoding import Engine
from eval.engine.passes import Kind
from eval.engine.policy import Autoregressive, Policy, SelfSpeculative
from eval.engine.sampling_options import SamplingOptions
from models.inference import InferenceLlama


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """torch.compile leaves functions as they are, and counts them: what is left are the static shapes."""
    counts: list[int] = []

    def leave(call: object, **_: object) -> object:
        counts.append(1)
        return call

    monkeypatch.setattr(passes.torch, "compile", leave)
    return counts


@pytest.mark.parametrize("policy", [Autoregressive(), SelfSpeculative(2, 5), SelfSpeculative(2, 3, False)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_static_shapes_give_the_same_rounds(uncompiled: list[int], policy: Policy, batch_size: int) -> None:
    model, rng = tiny(), random.Random(batch_size)
    sampled = SamplingOptions(temperature=0.9, seed=3)
    requests = [
        request([rng.randrange(24) for _ in range(rng.randrange(1, 30))], rng.choice([1, 2, 9, 80]), options)
        for options in (None, sampled, None, sampled, None)
    ]
    eager = together(Engine(model, None, batch_size), requests, policy, 5)
    assert together(Engine(model, None, batch_size, compiled=True), requests, policy, 5) == eager
    # A text that has room for one token alone has it from the plain pass; a draft, a last draft and a verification.
    assert len(uncompiled) <= 4, "one for each kind of pass, whatever is left of a text"


@pytest.mark.slow
def test_compiled_passes_give_the_same_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    model = tiny()
    requests = [request([i, i + 1], 12) for i in range(4)]
    policy = SelfSpeculative(2, 3)
    expected = together(Engine(model, None, 2), requests, policy, 4)
    assert together(Engine(model, None, 2, compiled=True), requests, policy, 4) == expected
    assert any(tmp_path.iterdir()), "kept for the next process"


@pytest.mark.parametrize("n_kv_heads", [4, 2])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_passes_on_a_gpu_have_all_tensors_there(n_kv_heads: int, dtype: torch.dtype) -> None:
    size = tiny_model(n_heads=4, n_kv_heads=n_kv_heads)
    weights = our_model(size).state_dict()
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = InferenceLlama(size, weights, dtype=dtype, device=torch.device("cuda"))
        for batch_size, static in [(1, False), (3, False), (3, True)]:
            engine = Engine(model, 32, batch_size)
            engine.compiled = static  # the shapes alone: nothing can be compiled here
            engine.cache.lengths = [5, 9, 7][:batch_size]
            places = engine.places(min(batch_size, 2), 4)
            n = batch_size if static else min(batch_size, 2)
            tokens = torch.zeros(n, 4, dtype=torch.int64, device="cuda")
            states, _ = engine.passes(Kind(0, 2, False), tokens, places, 4)
            logits = engine.verify(states, places, 2, 4)
            assert logits.shape == (n, 4, size.vocab_size)
            assert logits.device.type == "cuda"
            assert logits.dtype is dtype
