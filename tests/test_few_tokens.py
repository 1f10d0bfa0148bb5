"""Tokens drawn, accepted and chosen in succession by our own code on a CPU: what the operations of torch give."""

import random

import pytest
import torch
from test_decoding import tiny
from test_few_blocks import FORMATS, models, size_of

from eval.engine.decoding import Engine
from eval.engine.passes import Head
from eval.engine.policy import Autoregressive, EarlyExit, Policy, SelfSpeculative
from eval.engine.rows import Round
from eval.engine.sampling import Sampler, best, draw, probabilities
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import StopRule
from models.kernels import draws
from models.kernels.few_tokens import GREEDY, Choice

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("threads_as_before")


def random_numbers(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocab_size", [5, 1024, 1025, 5000])
def test_a_token_is_drawn_as_torch_draws_it(vocab_size: int, dtype: torch.dtype, temperature: float) -> None:
    for seed in range(20):
        logits = (torch.randn(vocab_size, generator=random_numbers(seed)) * 3).to(dtype)
        logits[seed % 5] = float("-inf")
        token, p = draws.draw(logits, temperature, random_numbers(seed))
        torch.testing.assert_close(p, probabilities(logits, SamplingOptions(temperature=temperature)))
        assert p[seed % 5] == 0
        assert torch.equal(token, draw(p, random_numbers(seed)))


def test_a_token_that_cannot_be_is_not_drawn() -> None:
    """At the ends of the numbers that are drawn with, and where all but one token have no probability."""
    logits = torch.full((3000,), float("-inf"))
    logits[1500] = 0.0
    assert all(draws.draw(logits, 1.0, random_numbers(seed))[0] == 1500 for seed in range(50))
    kernels = draws.library()
    assert kernels
    p = torch.empty(3000)
    logits[[7, 2000]] = 0.0
    for u, token in ((0.0, 7), (0.34, 1500), (1 - 2**-53, 2000)):
        assert kernels.draw_token(logits.data_ptr(), False, 3000, 1.0, u, p.data_ptr()) == token


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_drafts_are_accepted_as_torch_accepts_them(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same number of them and the same token after them, from the same random numbers."""
    rng, lengths = random.Random(0), set[int]()
    for seed in range(200):
        d, vocab_size, options = rng.randrange(1, 5), rng.choice([7, 40]), SamplingOptions(temperature=0.8, seed=seed)
        logits = torch.randn(d + 1, vocab_size, generator=random_numbers(seed)).to(dtype)
        near = logits[:d].float() + torch.randn(d, vocab_size, generator=random_numbers(-seed)) * rng.choice(
            [0, 0.5, 2]
        )
        q = probabilities(near, options)
        drafted = torch.multinomial(q, 1, generator=random_numbers(seed)).view(-1)
        ours = Sampler(options, CPU).accept(drafted, q, logits)
        with monkeypatch.context() as patch:
            patch.setattr(draws, "draws_from", lambda _: False)
            theirs = Sampler(options, CPU).accept(drafted, q, logits)
        assert ours[:2] == theirs[:2]
        lengths.add(len(ours[0]) - 1 - d)
    assert len(lengths) == 5, "every number of drafts has been rejected"


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("n_draft_ids", [None, 9])
@pytest.mark.parametrize(("dtype", "int8"), FORMATS)
@torch.inference_mode()
def test_in_succession_as_one_by_one(dtype: torch.dtype, int8: bool, n_draft_ids: int | None, n_threads: int) -> None:
    """Bit for bit: tokens, states, what they were drawn from, keys and values; of rows that each stand elsewhere."""
    torch.set_num_threads(n_threads)
    ids = None if n_draft_ids is None else torch.randperm(24, generator=random_numbers(0))[:n_draft_ids].sort().values
    model, _ = models(size_of(4, 2), dtype, int8, draft_ids=ids)
    few, n_layers, steps = model.few_drafts, 3, 4
    assert few is not None
    for batch, read_last in ((1, True), (3, False), (3, True)):
        last, starts = torch.randint(24, (batch, 1)), [5, 9, 2][:batch]
        positions = torch.tensor([range(start, start + steps + 1) for start in starts])
        caches = [model.new_cache(24, batch) for _ in range(2)]
        caches[0].kv.normal_()
        caches[1].kv.copy_(caches[0].kv)
        u = draws.uniforms(steps, random_numbers(1))
        choices = [Choice(0.7, u), GREEDY, Choice(0.7, u[:2])][:batch]
        at = positions[0] if batch == 1 else positions
        found = few(last, caches[0], at, n_layers, steps, choices, read_last=read_last)
        samplers, tokens = [Sampler(SamplingOptions(temperature=0.7, seed=1), CPU) for _ in range(batch)], last
        for step in range(steps + read_last):
            here = at[..., step : step + 1]
            x = model.run(model.embed(tokens), caches[1], here, int(here.max()) + 1, range(n_layers))
            assert torch.equal(found.states[:, step : step + 1], x)
            if step == steps:
                break
            logits = model.draft_logits(x)[:, 0]
            for row, choice in enumerate(choices):
                expected = best(logits[row])
                if step < len(choice.u):
                    expected, q = samplers[row].draft(logits[row])
                    assert q is not None
                    torch.testing.assert_close(found.q[row, step], q)
                assert found.ids[row, step] == expected
            tokens = found.ids[:, step : step + 1]
        assert torch.equal(caches[0].kv, caches[1].kv)


@pytest.mark.parametrize(
    "policy", [Autoregressive(), EarlyExit(2), SelfSpeculative(2, 3), SelfSpeculative(1, 5, False)]
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_text_is_the_same(policy: Policy, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its tokens are chosen in one call or by one operation after another; to the end of the context, too."""
    model = tiny(torch.float32, dim=64, n_heads=2, n_kv_heads=1, ffn_dim=64)
    sampling = SamplingOptions(temperature=temperature, seed=3)

    def rounds() -> list[Round]:
        engine = Engine(model, 32)
        [*found] = Engine.generate(engine, [1, 2, 3], policy, StopRule(max_new_tokens=40), sampling)
        return found

    calls, few = [], Engine.few

    def counted(*arguments: object) -> object:
        calls.append(few(*arguments))  # type: ignore[arg-type]
        return calls[-1]

    monkeypatch.setattr(Engine, "few", counted)
    at_once = rounds()
    assert all(calls), "it is the way that is taken"
    assert len(calls) == len(at_once) - 1
    monkeypatch.setattr(Engine, "few", lambda *_: None)
    assert rounds() == at_once


def test_what_it_is_not_for() -> None:
    """Filters and penalties, compiled passes, more rows than it is fast for: tokens are chosen one by one."""
    model = tiny(torch.float32, dim=64, n_heads=2, n_kv_heads=1, ffn_dim=64)

    def few(options: SamplingOptions, n_rows: int = 1) -> object:
        return Engine(model).few([Sampler(options, CPU)] * n_rows, Head.full)

    assert few(SamplingOptions())
    assert few(SamplingOptions(temperature=0.5))
    assert not few(SamplingOptions(temperature=0.5), 49)
    for filters in ({"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}, {"repetition_penalty": 1.1}):
        assert not few(SamplingOptions(temperature=0.5, **filters))
    assert not few(SamplingOptions(repetition_penalty=1.1))
    assert few(SamplingOptions(top_k=3)), "of greedy tokens it changes nothing"
