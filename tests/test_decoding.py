"""The decoders against stub models with a known answer, then token for token against autoregressive decoding."""

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import tiny_model
from test_parity_hf import our_model

from eval.engine.decoding import Engine
from eval.engine.policy import Autoregressive, EarlyExit, Policy, SelfSpeculative
from eval.engine.rows import Round
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import StopRule
from models.inference import InferenceLlama

CPU = torch.device("cpu")
V = 11
BLOCK = {"head_dim": 1, "n_heads": 1, "kv_heads": 1, "ffn_dim": 1}
"""What the cost of a block is counted from."""


class Stub:
    """A model of 4 layers whose next token depends on the last one alone: by one table after 4 layers, else by another.

    The state of a token is its id, plus 1/2 once the upper layers have seen it.
    """

    device, real_dtype = CPU, torch.float32
    few_tokens = few_drafts = None

    def __init__(self, full: list[int], draft: list[int]) -> None:
        self.size = SimpleNamespace(n_layers=4, max_seq_len=64, vocab_size=V, **BLOCK)
        self.blocks, self.masks = [None] * 4, dict[int, torch.Tensor]()
        self.tables = {0.5: torch.tensor(full), 0.0: torch.tensor(draft)}
        self.blocks_run: dict[tuple[int, int], int] = {}

    def new_cache(self, max_len: int, batch_size: int = 1, *, layered: bool = False) -> SimpleNamespace:
        assert not layered
        # Keys and values of rows, of which a stub has none.
        cache = SimpleNamespace(max_len=max_len, lengths=[0] * batch_size, row=lambda _: cache)
        cache.move = lambda source, target: cache.lengths.__setitem__(target, cache.lengths[source])
        return cache

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.unsqueeze(-1).float()

    def run(
        self, x: torch.Tensor, cache: SimpleNamespace, positions: torch.Tensor, end: int, layers: range
    ) -> torch.Tensor:
        assert end == positions.max() + 1
        for position in positions.flatten().tolist():
            for layer in layers:
                self.blocks_run[position, layer] = self.blocks_run.get((position, layer), 0) + 1
        return x + 0.5 if layers[-1] == 3 else x

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        token, depth = x[..., 0].floor().long(), x[..., 0] % 1
        following = torch.where(depth == 0.5, self.tables[0.5][token], self.tables[0.0][token])
        return torch.nn.functional.one_hot(following, V).float()

    draft_ids = None

    def draft_logits(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits(x)


NEXT = [(t + 1) % V for t in range(V)]
WRONG = [(t + 2) % V for t in range(V)]
SOMETIMES = [NEXT[t] if t % 3 else WRONG[t] for t in range(V)]


def decode(model: Any, policy: Policy, prompt: list[int], n: int, **stop: Any) -> list[Round]:
    return list(Engine(model, stop.pop("max_len", None)).generate(prompt, policy, StopRule(max_new_tokens=n, **stop)))


def tokens(rounds: list[Round]) -> list[int]:
    return [t for r in rounds for t in r.tokens]


def count(start: int, n: int) -> list[int]:
    return [(start + i) % V for i in range(n)]


@pytest.mark.parametrize("policy", [Autoregressive(), EarlyExit(4), SelfSpeculative(2, 3), SelfSpeculative(1, 1)])
@pytest.mark.parametrize("draft", [NEXT, WRONG, SOMETIMES], ids=["always", "never", "sometimes"])
def test_the_full_model_decides(policy: Policy, draft: list[int]) -> None:
    assert tokens(decode(Stub(NEXT, draft), policy, [5, 0], 20)) == count(1, 20)


def test_early_exit_is_the_draft() -> None:
    assert tokens(decode(Stub(NEXT, WRONG), EarlyExit(2), [0], 4)) == [2, 4, 6, 8]


def test_always_accepted() -> None:
    rounds = decode(Stub(NEXT, NEXT), SelfSpeculative(2, 3), [0], 13)
    assert [(len(r.tokens), r.n_drafted, r.n_accepted) for r in rounds] == [(1, 0, 0)] + [(4, 3, 3)] * 3


def test_never_accepted() -> None:
    rounds = decode(Stub(NEXT, WRONG), SelfSpeculative(2, 3), [0], 4)
    assert [(len(r.tokens), r.n_drafted, r.n_accepted) for r in rounds] == [(1, 0, 0), (1, 2, 0), (1, 1, 0), (1, 0, 0)]


def test_sometimes_accepted() -> None:
    # The draft is wrong after 0, 3, 6, 9. From 1: drafts 2, 3 are right and what follows 3 is not.
    rounds = decode(Stub(NEXT, SOMETIMES), SelfSpeculative(2, 3), [0], 9)
    assert [r.tokens for r in rounds[:3]] == [[1], [2, 3, 4], [5, 6, 7]]
    assert [r.n_accepted for r in rounds[:3]] == [0, 2, 2]


def test_no_block_is_computed_twice_for_an_accepted_token() -> None:
    stub = Stub(NEXT, NEXT)
    decode(stub, SelfSpeculative(2, 3), [0], 13)
    assert set(stub.blocks_run.values()) == {1}


@pytest.mark.parametrize("policy", [Autoregressive(), SelfSpeculative(2, 3), SelfSpeculative(2, 50)])
def test_eos_inside_a_draft_ends_the_text(policy: Policy) -> None:
    rounds = decode(Stub(NEXT, NEXT), policy, [0], 30, eos_ids=frozenset({7}))
    assert tokens(rounds) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("policy", [Autoregressive(), SelfSpeculative(2, 4)])
def test_stop_strings_across_tokens(policy: Policy) -> None:
    stop = {"strings": ("34",), "decode": lambda ids: "".join(map(str, ids))}
    assert tokens(decode(Stub(NEXT, NEXT), policy, [0], 30, **stop)) == [1, 2, 3, 4]


def test_the_context_ends_alike_for_all() -> None:
    for max_len in range(4, 20):
        autoregressive = tokens(decode(Stub(NEXT, NEXT), Autoregressive(), [0, 1, 2], 50, max_len=max_len))
        assert len(autoregressive) == max_len - 3 + 1
        for draft in (NEXT, WRONG, SOMETIMES):
            for d in (1, 3, 9):
                got = tokens(decode(Stub(NEXT, draft), SelfSpeculative(1, d), [0, 1, 2], 50, max_len=max_len))
                assert got == autoregressive


def tiny(dtype: torch.dtype = torch.float64, draft_ids: torch.Tensor | None = None, **changes: Any) -> InferenceLlama:
    """A model whose early layers often, not always, agree with all of them."""
    size = tiny_model(n_layers=5, vocab_size=24, **changes)
    weights = our_model(size).state_dict()
    for name in weights:
        if name.endswith(("wo.weight", "w2.weight")):
            weights[name] = weights[name] * (8 if ".0." in name else 2)
    return InferenceLlama(size, weights, dtype=dtype, device=CPU, draft_ids=draft_ids)


def test_token_for_token_over_many_settings() -> None:
    model, rng = tiny(), random.Random(0)
    accepted = drafted = 0
    for _ in range(150):
        prompt = [rng.randrange(24) for _ in range(rng.randrange(1, 30))]
        n, max_len = rng.randrange(1, 40), rng.choice([None, 32, 48])
        stop = {"max_len": max_len, "eos_ids": frozenset({rng.randrange(24)} if rng.random() < 0.3 else ())}
        autoregressive = tokens(decode(model, Autoregressive(), prompt, n, **stop))
        policy = SelfSpeculative(rng.randrange(1, 5), rng.randrange(1, 9))
        rounds = decode(model, policy, prompt, n, **stop)
        assert tokens(rounds) == autoregressive, policy
        accepted += sum(r.n_accepted for r in rounds)
        drafted += sum(r.n_drafted for r in rounds)
    assert 0.1 < accepted / drafted < 0.95, "both outcomes must have been tried"


def test_recomputed_exit_states_give_the_same_rounds() -> None:
    model, rng = tiny(), random.Random(1)
    for _ in range(40):
        prompt, n = [rng.randrange(24) for _ in range(rng.randrange(1, 30))], rng.randrange(2, 34)
        e, d = rng.randrange(1, 5), rng.randrange(1, 9)
        reused = decode(model, SelfSpeculative(e, d), prompt, n)
        assert decode(model, SelfSpeculative(e, d, reuse_exit_states=False), prompt, n) == reused


def test_recomputing_runs_the_first_layers_again_and_the_last_draft_not() -> None:
    stub = Stub(NEXT, NEXT)
    assert tokens(decode(stub, SelfSpeculative(2, 3, reuse_exit_states=False), [0], 5)) == count(1, 5)
    # Positions 1 to 3 are run as drafts and again for the verification, 4 for the verification alone.
    runs = {p: [stub.blocks_run[p, layer] for layer in range(4)] for p in range(5)}
    assert runs == {0: [1, 1, 1, 1], 1: [2, 2, 1, 1], 2: [2, 2, 1, 1], 3: [2, 2, 1, 1], 4: [1, 1, 1, 1]}


def test_the_cache_after_rejections_is_that_of_plain_decoding() -> None:
    model = tiny()
    autoregressive, fast = Engine(model), Engine(model)
    stop = StopRule(max_new_tokens=30)
    a = tokens(list(autoregressive.generate([1, 2, 3], Autoregressive(), stop)))
    b = tokens(list(fast.generate([1, 2, 3], SelfSpeculative(2, 4), stop)))
    assert a == b
    n = min(autoregressive.cache.lengths[0], fast.cache.lengths[0])
    torch.testing.assert_close(fast.cache.kv[:, :, :, :n], autoregressive.cache.kv[:, :, :, :n])


def test_an_exception_in_the_middle_leaves_the_engine_usable() -> None:
    model = tiny()
    engine, policy, stop = Engine(model), SelfSpeculative(2, 4), StopRule(max_new_tokens=20)
    expected = tokens(list(engine.generate([3, 1], policy, stop)))
    run, calls = model.run, 0

    def failing(*args: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise RuntimeError("out of memory")
        return run(*args)

    model.run = failing  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="out of memory"):
        list(engine.generate([7, 7, 7], policy, stop))
    model.run = run  # type: ignore[method-assign]
    assert tokens(list(engine.generate([3, 1], policy, stop))) == expected


@pytest.mark.parametrize(
    ("prompt", "policy", "message"),
    [
        ([], Autoregressive(), "prompt is empty"),
        ([1] * 64, Autoregressive(), "64 tokens: must be fewer than the context's 64"),
        ([1], EarlyExit(6), r"exit_layer=6: must lie in 1\.\.5"),
        ([1], EarlyExit(0), r"exit_layer=0: must lie in 1\.\.5"),
        ([1], SelfSpeculative(5, 3), r"exit_layer=5: must lie in 1\.\.4"),
        ([1], SelfSpeculative(2, 0), "num_speculations=0"),
    ],
)
def test_bad_input_is_told_in_one_line(prompt: list[int], policy: Policy, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Engine(tiny()).generate(prompt, policy, StopRule(max_new_tokens=5))


@pytest.mark.parametrize("options", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_bad_sampling_options(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        SamplingOptions(**options)
