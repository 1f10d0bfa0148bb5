"""Many texts at the same time: each is, round for round, the one that its prompt alone would give."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from conftest import tiny_model
from test_decoding import CPU, NEXT, SOMETIMES, WRONG, Stub, count, tiny, tokens

from conf.machine import total_memory
from eval import machine
from eval.engine.decoding import Engine
from eval.engine.policy import Autoregressive, DraftModel, EarlyExit, Policy, PromptLookup, SelfSpeculative
from eval.engine.rows import Request, Round
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import StopRule
from models.kv_cache import row_bytes

POLICIES = [
    *(Autoregressive(), EarlyExit(2), SelfSpeculative(2, 3), SelfSpeculative(1, 7)),
    *(PromptLookup(4), DraftModel(2, 3)),
]


def request(prompt: list[int], n: int, sampling: SamplingOptions | None = None, **stop: Any) -> Request:
    return Request(prompt, StopRule(max_new_tokens=n, **stop), sampling or SamplingOptions())


def together(engine: Engine, requests: Any, policy: Policy, n: int) -> list[list[Round]]:
    texts: list[list[Round]] = [[] for _ in range(n)]
    for rounds in engine.generate_all(requests, policy):
        for number, round_ in rounds:
            texts[number].append(round_)
    return texts


def alone(engine: Engine, one: Request, policy: Policy) -> list[Round]:
    return list(engine.generate(one.prompt, policy, one.stop, one.sampling))


@pytest.mark.parametrize("draft", [NEXT, WRONG, SOMETIMES], ids=["always", "never", "sometimes"])
@pytest.mark.parametrize("policy", [Autoregressive(), SelfSpeculative(2, 3)])
def test_known_answers(policy: Policy, draft: list[int]) -> None:
    stub: Any = Stub(NEXT, draft)
    text = {"strings": ("34",), "decode": lambda ids: "".join(map(str, ids))}
    requests = [
        request([0], 5),
        request([5, 5, 2], 1),
        request([9], 30, eos_ids=frozenset({3})),
        request([1, 2], 30, **text),
        request([7] * 5, 9),
        request([4], 2),
    ]
    found = together(Engine(stub, 40, 3), requests, policy, len(requests))
    expected = [count(1, 5), count(3, 1), count(10, 5), count(3, 2), count(8, 9), count(5, 2)]
    assert [tokens(rounds) for rounds in found] == expected


@pytest.mark.parametrize("policy", POLICIES)
def test_each_row_has_the_rounds_of_its_prompt_alone(policy: Policy) -> None:
    model, rng = tiny(), random.Random(str(policy))
    one_by_one = Engine(model)
    for batch_size in (2, 3, 5):
        several = Engine(model, None, batch_size)
        requests = []
        for seed in range(11):
            drawn = SamplingOptions(
                temperature=rng.choice([0.0, 0.7, 1.5]),
                top_k=rng.choice([0, 5]),
                min_p=rng.choice([0.0, 0.05]),
                repetition_penalty=rng.choice([1.0, 1.3]),
                seed=seed,
            )
            ends = {"eos_ids": frozenset({rng.randrange(24)})} if rng.random() < 0.3 else {}
            prompt = [rng.randrange(24) for _ in range(rng.randrange(1, 30))]
            # Some texts end with the context of 64 positions, in the same passes as others that do not.
            requests.append(request(prompt, rng.choice([1, 4, 30, 80]), rng.choice([None, drawn]), **ends))
        found = together(several, requests, policy, len(requests))
        assert found == [alone(one_by_one, one, policy) for one in requests]


@pytest.mark.parametrize("reuse", [True, False])
def test_greedy_batches_of_both_kinds_of_verification(reuse: bool) -> None:
    model, rng = tiny(), random.Random(3)
    requests = [request([rng.randrange(24) for _ in range(rng.randrange(1, 50))], 40) for _ in range(9)]
    policy = SelfSpeculative(2, 4, reuse)
    found = together(Engine(model, None, 4), requests, policy, 9)
    assert found == [alone(Engine(model), one, policy) for one in requests]
    assert [tokens(rounds) for rounds in found] == [
        tokens(alone(Engine(model), one, Autoregressive())) for one in requests
    ]


def test_a_prompt_is_taken_when_there_is_room() -> None:
    stub, taken = Stub(NEXT, NEXT), list[int]()
    lengths = [3, 9, 2, 2]

    def come() -> Iterator[Request]:
        for i, n in enumerate(lengths):
            taken.append(i)
            yield request([i], n)

    seen = []
    for rounds in Engine(stub, 40, 2).generate_all(come(), Autoregressive()):  # type: ignore[arg-type]
        seen.append(([number for number, _ in rounds], len(taken)))
    # The prompts first, then both; the next prompt as soon as a text has ended, here in the place of the one before it.
    numbers = [[0], [1], [0, 1], [0, 1], [2], [1, 2], [3], [1, 3], [1], [1], [1], [1]]
    assert [found for found, _ in seen] == numbers
    assert [n for _, n in seen] == [1, 2, 2, 2, 3, 3, 4, 4, 4, 4, 4, 4], "not asked for before there is room"


def test_rows_are_passed_through_together() -> None:
    """A batch of 4 takes as many passes after the prompts as its longest text alone."""
    model = tiny()
    run, widths = model.run, list[int]()
    model.run = lambda x, *rest: widths.append(len(x)) or run(x, *rest)  # type: ignore[method-assign,func-returns-value]
    together(Engine(model, None, 4), [request([i], n) for i, n in enumerate((3, 6, 6, 6))], Autoregressive(), 4)
    assert widths == [1] * 4 + [4, 4, 3, 3, 3]


def test_what_cannot_be_decoded_is_refused_when_its_turn_comes() -> None:
    texts = Engine(tiny(), 20, 2).generate_all([request([1], 2), request([1] * 20, 5)], Autoregressive())
    assert [number for number, _ in next(texts)] == [0]
    with pytest.raises(ValueError, match="the prompt has 20 tokens: must be fewer than the context's 20"):
        next(texts)


def test_auto_takes_what_fits_into_half_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    size = tiny_model(n_layers=5, vocab_size=24)
    row = row_bytes(size, 100, torch.float32)
    assert row == 5 * 2 * size.kv_heads * size.head_dim * 101 * 4

    def chosen(asked: str, free: int) -> int:
        monkeypatch.setattr(machine, "free_memory", lambda _: free)
        return machine.batch_size_of(asked, size, 100, torch.float32, CPU)

    assert chosen("auto", 2 * 7 * (row + 24 * 12)) == 7
    assert chosen("auto", 10) == 1
    assert chosen("auto", 1 << 50) == 64
    assert chosen("9", 10) == 9
    monkeypatch.undo()
    assert 0 < machine.free_memory(CPU) <= total_memory()


def test_nothing_to_decode() -> None:
    assert list(Engine(tiny(), 20, 2).generate_all([], Autoregressive())) == []
