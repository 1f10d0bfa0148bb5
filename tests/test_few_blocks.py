"""Our own blocks for CPUs: what torch's operations give, and the same for a row whatever the others are."""

import itertools
import random

import pytest
import torch
from conftest import tiny_model
from test_batches import together
from test_decoding import tiny, tokens
from test_parity_hf import our_model

from eval.engine.decoding import Engine
from eval.engine.policy import Autoregressive, SelfSpeculative
from eval.engine.rows import Request
from eval.engine.stopping import StopRule
from models.config import ModelConfig
from models.inference import InferenceLlama
from models.kv_cache import KVCache, LayeredKVCache

CPU = torch.device("cpu")
FORMATS = [(torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)]
CLOSE = {torch.float32: 2e-5, torch.bfloat16: 0.06}
HEADS = [(4, 2), (4, 4), (3, 1)]
pytestmark = pytest.mark.usefixtures("threads_as_before")


def size_of(n_heads: int, n_kv_heads: int, **changes: int) -> ModelConfig:
    return tiny_model(dim=n_heads * 32, n_heads=n_heads, n_kv_heads=n_kv_heads, ffn_dim=160, **changes)


def models(
    size: ModelConfig, dtype: torch.dtype, int8: bool, draft_ids: torch.Tensor | None = None
) -> tuple[InferenceLlama, InferenceLlama]:
    """One with our blocks and one without, of weights large enough for every part of a block to matter."""
    weights = {name: w * 3 if w.dim() == 2 else w for name, w in our_model(size).state_dict().items()}
    ours, theirs = (
        InferenceLlama(size, weights, dtype=dtype, device=CPU, int8=int8, our_kernels=kernels, draft_ids=draft_ids)
        for kernels in (True, False)
    )
    assert ours.few_blocks is not None
    assert theirs.few_blocks is None
    return ours, theirs


@torch.inference_mode()
def run(model: InferenceLlama, x: torch.Tensor, cache: KVCache, positions: torch.Tensor, layers: range) -> torch.Tensor:
    return model.run(x, cache, positions, int(positions.max()) + 1, layers)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(("dtype", "int8"), FORMATS)
@pytest.mark.parametrize(("n_heads", "n_kv_heads"), HEADS)
def test_as_torch(n_heads: int, n_kv_heads: int, dtype: torch.dtype, int8: bool, n_threads: int) -> None:
    """A prompt, a token, several tokens; two rows alike, and two that each stand elsewhere. The caches too."""
    torch.set_num_threads(n_threads)
    size = size_of(n_heads, n_kv_heads)
    both, layers = models(size, dtype, int8), range(size.n_layers)
    caches = [model.new_cache(40, 2) for model in both]
    places = [torch.arange(5), torch.tensor([5]), torch.arange(6, 9), torch.tensor([[3], [9]])]
    places += [torch.tensor([[4, 5, 6], [10, 11, 12]]), torch.arange(13, 18), torch.tensor([18])]
    for positions in places:
        x = torch.randn(2, positions.shape[-1], size.dim).to(dtype)
        got, expected = (run(m, x, c, positions, layers) for m, c in zip(both, caches, strict=True))
        torch.testing.assert_close(got, expected, rtol=CLOSE[dtype], atol=CLOSE[dtype] * float(expected.abs().max()))
        ours, theirs = (cache.kv for cache in caches)
        torch.testing.assert_close(ours, theirs, rtol=CLOSE[dtype], atol=CLOSE[dtype] * float(theirs.abs().max()))
        ours.copy_(theirs)  # so that differences do not add up


@pytest.mark.parametrize(("dtype", "int8"), FORMATS)
def test_a_row_does_not_feel_the_others(dtype: torch.dtype, int8: bool) -> None:
    """A token alone, among others of its row, in a batch, at a place of its own: bit for bit the same."""
    size = size_of(4, 2)
    (model, _), layers = models(size, dtype, int8), range(size.n_layers)
    x = torch.randn(2, 8, size.dim).to(dtype)
    alone, n = model.new_cache(24, 2), x.shape[1]
    one_by_one = torch.empty_like(x)
    for b, t in itertools.product(range(2), range(n)):
        one_by_one[b, t] = run(model, x[b : b + 1, t : t + 1], alone.row(b), torch.tensor([t]), layers)
    for n_threads in (1, 2, 3):
        torch.set_num_threads(n_threads)
        cache = model.new_cache(24, 2)
        several = [run(model, x[:, :3], cache, torch.arange(3), layers)]
        several.append(run(model, x[:, 3:], cache, torch.arange(3, n).repeat(2, 1), layers))
        assert torch.equal(torch.cat(several, 1), one_by_one)
        assert torch.equal(cache.kv[:, :, :, :n], alone.kv[:, :, :, :n])


@pytest.mark.parametrize(("dtype", "int8"), FORMATS)
def test_a_pass_may_be_left_and_gone_on_with(dtype: torch.dtype, int8: bool) -> None:
    size = size_of(4, 2)
    (model, _), positions = models(size, dtype, int8), torch.arange(4)
    x, whole, parts = torch.randn(1, 4, size.dim).to(dtype), model.new_cache(8), model.new_cache(8)
    half = run(model, x, parts, positions, range(2))
    kept = half.clone()
    assert torch.equal(run(model, half, parts, positions, range(2, 4)), run(model, x, whole, positions, range(4)))
    assert torch.equal(half, kept), "states that are reused are left as they are"
    assert torch.equal(parts.kv, whole.kv)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_self_speculation_says_what_plain_decoding_does(dtype: torch.dtype) -> None:
    """Without near-ties: a token's bits are the same in a pass of one and in one of many, of one text and of three."""
    model, rng = tiny(dtype, dim=64, n_heads=2, n_kv_heads=1, ffn_dim=64), random.Random(0)
    assert model.few_blocks is not None
    engine, three, n_accepted, n_drafted = Engine(model), Engine(model, None, 3), 0, 0
    for _ in range(15):
        policy = SelfSpeculative(rng.randrange(1, 5), rng.randrange(1, 4))
        prompts = [[rng.randrange(24) for _ in range(rng.randrange(1, 12))] for _ in range(4)]
        requests = [Request(prompt, StopRule(max_new_tokens=rng.randrange(1, 40))) for prompt in prompts]
        texts = together(three, requests, policy, len(requests))
        for request, rounds in zip(requests, texts, strict=True):
            plain = tokens(list(engine.generate(request.prompt, Autoregressive(), request.stop)))
            assert tokens(list(engine.generate(request.prompt, policy, request.stop))) == plain == tokens(rounds)
            n_accepted += sum(r.n_accepted for r in rounds)
            n_drafted += sum(r.n_drafted for r in rounds)
    assert 0.1 < n_accepted / n_drafted < 0.95, "both outcomes must have been tried"


def test_late_positions() -> None:
    """Attention over more positions than a vector has numbers, none of which a stale one beyond it may change."""
    size = size_of(2, 1, max_seq_len=256)
    both = models(size, torch.float32, False)
    caches = [model.new_cache(200) for model in both]
    prompt = torch.randn(1, 150, size.dim)
    for model, cache in zip(both, caches, strict=True):
        run(model, prompt, cache, torch.arange(150), range(4))
    caches[0].kv.copy_(caches[1].kv)
    caches[0].kv[:, :, :, 150:] = float("nan")
    x = torch.randn(1, 3, size.dim)
    got, expected = (run(m, x, c, torch.arange(150, 153), range(4)) for m, c in zip(both, caches, strict=True))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_attention_that_looks_at_one_place() -> None:
    """Scores of hundreds: the largest gets everything, and nothing overflows."""
    size = size_of(2, 1)
    weights = our_model(size).state_dict()
    for name in weights:
        if ".wq." in name or ".wk." in name:
            weights[name] = weights[name] * 100
    results = []
    for kernels in (True, False):
        model = InferenceLlama(size, weights, dtype=torch.float32, device=CPU, our_kernels=kernels)
        x = torch.randn(1, 12, size.dim, generator=torch.Generator().manual_seed(0))
        results.append(run(model, x, model.new_cache(12), torch.arange(12), range(1)))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_what_it_is_not_for() -> None:
    """A width that is no multiple of a vector's; other number formats, caches, and many rows are torch's."""
    weights = our_model(tiny_model(ffn_dim=50)).state_dict()
    assert InferenceLlama(tiny_model(ffn_dim=50), weights, dtype=torch.float32, device=CPU).few_blocks is None
    size = size_of(4, 2)
    weights = our_model(size).state_dict()
    assert InferenceLlama(size, weights, dtype=torch.float64, device=CPU).few_blocks is None
    model = InferenceLlama(size, weights, dtype=torch.float32, device=CPU)
    assert model.few_blocks is not None
    assert model.few_blocks.takes(48, model.new_cache(48))
    assert not model.few_blocks.takes(48, model.new_cache(48, layered=True))
    assert isinstance(model.new_cache(48, layered=True), LayeredKVCache)
    assert not model.few_blocks.takes(49, model.new_cache(48, 7))
    assert not model.few_blocks.takes(1, model.new_cache(2))
