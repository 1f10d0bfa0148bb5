"""Compiled passes of static shapes write what eager ones write."""

import random
from pathlib import Path

import pytest
from test_batches import request, together
from test_decoding import tiny

from eval.engine import passes
from eval.engine.decoding import Engine
from eval.engine.policy import Autoregressive, Policy, SelfSpeculative
from eval.engine.sampling_options import SamplingOptions


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
