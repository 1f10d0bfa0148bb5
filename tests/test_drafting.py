"""Drafts from the text's own repetitions and from another model: what is drafted, and that the text stays the same."""

import random
from typing import Any

import pytest
import torch
from conftest import tiny_model
from test_decoding import CPU, NEXT, SOMETIMES, Stub, V, count, decode, tiny, tokens
from test_parity_hf import our_model

from eval.engine.decoding import Engine
from eval.engine.drafting import NgramIndex
from eval.engine.policy import Autoregressive, DraftModel, Policy, PromptLookup, SelfSpeculative
from eval.engine.stopping import StopRule
from models.inference import InferenceLlama


def test_the_longest_and_latest_repetition_is_found() -> None:
    index = NgramIndex(3)
    index.extend([1, 2, 3, 4, 9, 2, 3, 5, 8, 3])
    assert index.following(2) == [5, 8], "the latest place of (3)"
    index.extend([7, 1, 2, 3])
    assert index.following(3) == [4, 9, 2], "(1, 2, 3) is longer than (2, 3) and (3)"
    index.extend([6])
    assert index.following(4) == []
    assert NgramIndex(3).following(1) == []
    index = NgramIndex(2)
    index.extend([4, 4, 4])
    assert index.following(5) == [4], "the end of the text does not find itself, and what follows may be short"


def test_drafts_are_what_followed_before() -> None:
    rounds = decode(Stub(NEXT, NEXT), PromptLookup(3), [1, 2, 3, 4, 5, 1], 9)
    # The prefill writes 2; behind (1, 2) stood 3, 4, 5; 5 was rejected nowhere; then 6 has never stood before.
    assert [(r.tokens, r.n_drafted, r.n_accepted) for r in rounds[:3]] == [
        ([2], 0, 0),
        ([3, 4, 5, 6], 3, 3),
        ([7], 0, 0),
    ]
    assert tokens(rounds) == count(2, 9)


def test_all_layers_verify_and_none_computes_a_token_twice_that_stands() -> None:
    stub = Stub(NEXT, NEXT)
    decode(stub, PromptLookup(4), [*range(V), 0], 20)
    assert set(stub.blocks_run.values()) == {1}


@pytest.mark.parametrize("policy", [PromptLookup(3), DraftModel(2, 3)])
def test_eos_inside_a_draft_ends_the_text(policy: Policy) -> None:
    rounds = decode(Stub(NEXT, NEXT), policy, [*range(V), 0], 30, eos_ids=frozenset({7}))
    assert tokens(rounds) == [1, 2, 3, 4, 5, 6, 7]


def test_token_for_token_over_many_settings() -> None:
    model, rng = tiny(), random.Random(0)
    accepted, drafted = dict.fromkeys("ld", 0), dict.fromkeys("ld", 0)
    for _ in range(80):
        prompt = [rng.randrange(24) for _ in range(rng.randrange(1, 30))]
        n, max_len = rng.randrange(1, 40), rng.choice([None, 32, 48])
        stop = {"max_len": max_len, "eos_ids": frozenset({rng.randrange(24)} if rng.random() < 0.3 else ())}
        autoregressive, d = tokens(decode(model, Autoregressive(), prompt, n, **stop)), rng.randrange(1, 9)
        for kind, policy in (("l", PromptLookup(d)), ("d", DraftModel(rng.randrange(1, 6), d))):
            rounds = decode(model, policy, prompt, n, **stop)
            assert tokens(rounds) == autoregressive, policy
            accepted[kind] += sum(r.n_accepted for r in rounds)
            drafted[kind] += sum(r.n_drafted for r in rounds)
    assert all(0.05 < accepted[kind] / drafted[kind] < 0.99 for kind in "ld"), "both outcomes must have been tried"


def test_the_first_layers_draft_alike_with_a_cache_of_their_own() -> None:
    model, rng = tiny(), random.Random(1)
    engine = Engine(model)
    for _ in range(40):
        prompt, n = [rng.randrange(24) for _ in range(rng.randrange(1, 30))], rng.randrange(2, 34)
        e, d, stop = rng.randrange(1, 5), rng.randrange(1, 9), StopRule(max_new_tokens=n)
        rounds = [list(engine.generate(prompt, p, stop)) for p in (SelfSpeculative(e, d), DraftModel(e, d))]
        assert rounds[0] == rounds[1]
    assert engine.drafting[1].model.head is model.head, "the weights are stored once"


def small(vocab_size: int = 24, context: int = 64) -> InferenceLlama:
    size = tiny_model(n_layers=2, vocab_size=vocab_size, max_seq_len=context)
    return InferenceLlama(size, our_model(size).state_dict(), dtype=torch.float64, device=CPU)


def test_another_model_may_draft() -> None:
    model, stop = tiny(), StopRule(max_new_tokens=30)
    expected = tokens(list(Engine(model).generate([3, 1, 4], Autoregressive(), stop)))
    itself = list(Engine(model, draft_model=model).generate([3, 1, 4], DraftModel(5, 4), stop))
    assert tokens(itself) == expected
    assert all(r.n_accepted == r.n_drafted for r in itself)
    # Its context of 12 ends before the text does, or is shorter than the prompt.
    other = Engine(model, draft_model=small(context=12))
    for prompt in ([3, 1, 4], [5] * 20):
        rounds = list(other.generate(prompt, DraftModel(2, 4), stop))
        assert tokens(rounds) == tokens(list(Engine(model).generate(prompt, Autoregressive(), stop)))
        assert bool(sum(r.n_drafted for r in rounds)) == (len(prompt) < 12)


def test_impossible_draft_models() -> None:
    stop = StopRule(max_new_tokens=4)
    with pytest.raises(ValueError, match="a vocabulary of 9, the model one of 24"):
        Engine(tiny(), draft_model=small(9))
    with pytest.raises(ValueError, match=r"exit_layer=6: must lie in 1\.\.5"):
        Engine(tiny()).generate([1], DraftModel(6, 3), stop)
    with pytest.raises(ValueError, match="exit_layer=1: must be 2, as the draft model has"):
        Engine(tiny(), draft_model=small()).generate([1], DraftModel(1, 3), stop)
    for policy in (PromptLookup(0), DraftModel(1, 0)):
        with pytest.raises(ValueError, match="num_speculations=0"):
            Engine(tiny()).generate([1], policy, stop)


def test_an_engine_is_as_new_for_the_next_text() -> None:
    engine: Any = Engine(Stub(NEXT, SOMETIMES))  # type: ignore[arg-type]
    for policy in (PromptLookup(3), DraftModel(2, 3)):
        first, second = (list(engine.generate([0, 1, 0], policy, StopRule(max_new_tokens=20))) for _ in range(2))
        assert first == second
