"""The lean decoder's logits equal transformers' and the training model's, in any split into passes."""

import copy
import itertools
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_model
from test_parity_hf import SIZES, hf_model, our_model
from torch.nn.attention.bias import CausalBias

from models.inference import InferenceLlama
from models.storage.hf import from_hf

CPU = torch.device("cpu")


def passes(model: InferenceLlama, tokens: torch.Tensor, cuts: list[int]) -> torch.Tensor:
    """Logits of tokens [1, T], in passes that begin at 0 and at each cut."""
    cache = model.new_cache(tokens.shape[1])
    bounds = [0, *cuts, tokens.shape[1]]
    layers = range(model.size.n_layers)
    with torch.inference_mode():
        parts = [
            model.logits(model.run(model.embed(tokens[:, a:b]), cache, torch.arange(a, b), b, layers))
            for a, b in itertools.pairwise(bounds)
        ]
    return torch.cat(parts, 1)


@pytest.mark.parametrize("changes", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("cuts", [[], [20, 25, *range(26, 33)], [1, 2, 32]], ids=["whole", "mixed", "odd"])
def test_logits_equal_transformers(changes: dict, cuts: list[int]) -> None:
    size = tiny_model(**changes)
    theirs = hf_model(size)
    tokens = torch.randint(size.vocab_size, (1, 33))
    model = InferenceLlama(size, from_hf(theirs.state_dict(), size), dtype=torch.float32, device=CPU)
    with torch.no_grad():
        torch.testing.assert_close(passes(model, tokens, cuts), theirs(tokens).logits, rtol=1e-4, atol=1e-4)


def test_logits_equal_the_training_model_at_every_exit() -> None:
    size = tiny_model()
    ours = our_model(size)
    model = InferenceLlama(size, ours.state_dict(), dtype=torch.float32, device=CPU)
    tokens = torch.randint(size.vocab_size, (1, 20))
    with torch.no_grad():
        exits = ours(tokens, exits=range(size.n_layers)).chunk(size.n_layers)
        cache = model.new_cache(20)
        x = model.embed(tokens)
        for layer, logits in enumerate(exits):
            x = model.run(x, cache, torch.arange(20), 20, range(layer, layer + 1))
            torch.testing.assert_close(model.logits(x), logits, rtol=1e-4, atol=1e-4)


def test_a_pass_reads_nothing_beyond_its_positions() -> None:
    """Rolled back equals never written: garbage after the position does not matter."""
    size = tiny_model()
    model = InferenceLlama(size, our_model(size).state_dict(), dtype=torch.float64, device=CPU)
    tokens = torch.randint(size.vocab_size, (1, 12))
    clean = passes(model, tokens, [8])
    cache = model.new_cache(12)
    cache.kv.fill_(float("nan"))
    layers = range(size.n_layers)
    with torch.inference_mode():
        model.run(model.embed(tokens[:, :8]), cache, torch.arange(8), 8, layers)
        again = model.logits(model.run(model.embed(tokens[:, 8:]), cache, torch.arange(8, 12), 12, layers))
    assert torch.equal(again, clean[:, 8:])


@pytest.mark.parametrize("n_kv_heads", [4, 2, 1])
def test_rows_at_different_positions_are_those_of_each_alone(n_kv_heads: int) -> None:
    size = tiny_model(n_heads=4, n_kv_heads=n_kv_heads)
    model = InferenceLlama(size, our_model(size).state_dict(), dtype=torch.float64, device=CPU)
    starts, width, layers = [9, 1, 5], 4, range(size.n_layers)
    rows = [torch.randint(size.vocab_size, (1, start + 2 * width)) for start in starts]
    alone = [passes(model, row, [start, start + width]) for row, start in zip(rows, starts, strict=True)]
    cache = model.new_cache(20, len(rows))
    with torch.inference_mode():
        for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
            model.run(model.embed(row[:, :start]), cache.row(i), torch.arange(start), start, layers)
        # A pass over several tokens, then the same number one by one; read up to the last, or more than that.
        for first, n, longer in [(0, width, 0), *((width + i, 1, i) for i in range(width))]:
            positions = torch.tensor(starts)[:, None] + first + torch.arange(n)
            tokens = torch.stack([row[0, at] for row, at in zip(rows, positions, strict=True)])
            x = model.run(model.embed(tokens), cache, positions, int(positions.max()) + 1 + longer, layers)
            for logits, at, expected in zip(model.logits(x), positions, alone, strict=True):
                torch.testing.assert_close(logits, expected[0, at], rtol=1e-10, atol=1e-10)


def test_a_row_that_takes_anothers_place_goes_on() -> None:
    size = tiny_model()
    model = InferenceLlama(size, our_model(size).state_dict(), dtype=torch.float64, device=CPU)
    tokens, layers = torch.randint(size.vocab_size, (1, 12)), range(size.n_layers)
    expected, cache = passes(model, tokens, [8]), model.new_cache(12, 3)
    with torch.inference_mode():
        model.run(model.embed(tokens[:, :8]), cache.row(2), torch.arange(8), 8, layers)
        cache.lengths[2] = 8
        cache.move(2, 0)
        assert cache.lengths[0] == 8
        last = model.run(model.embed(tokens[:, 8:]), cache.row(0), torch.arange(8, 12), 12, layers)
    assert torch.equal(model.logits(last), expected[:, 8:])


@pytest.mark.parametrize("n_kv_heads", [4, 2, 1])
@pytest.mark.parametrize("expands_heads", [False, True], ids=["16 bits", "32 bits"])
def test_the_attention_of_a_gpu_computes_the_same(n_kv_heads: int, expands_heads: bool) -> None:
    """What a GPU takes its fast kernels for (named masks, or heads of their own), here with a CPU's kernels."""
    size = tiny_model(n_heads=4, n_kv_heads=n_kv_heads)
    model = InferenceLlama(size, our_model(size).state_dict(), dtype=torch.float64, device=CPU)
    tokens = torch.randint(size.vocab_size, (1, 20))
    expected = passes(model, tokens, [7, 12, 13])
    on_gpu, masks = copy.copy(model), model.masks
    on_gpu.device, on_gpu.expands_heads = SimpleNamespace(type="cuda"), expands_heads  # type: ignore[assignment]
    on_gpu.new_cache = model.new_cache  # type: ignore[method-assign]
    assert isinstance(on_gpu._mask(5, 12), CausalBias) is not expands_heads
    torch.testing.assert_close(passes(on_gpu, tokens, [7, 12, 13]), expected, rtol=1e-10, atol=1e-10)
    assert on_gpu.masks is masks, "no other masks are made"
