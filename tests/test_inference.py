"""The lean decoder's logits equal transformers' and the training model's, in any split into passes."""

import itertools

import pytest
import torch
from conftest import tiny_model
from test_parity_hf import SIZES, hf_model, our_model

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
