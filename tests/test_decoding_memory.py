"""Computed memory against the bytes of real tensors, and what a long prompt's pass takes."""

from dataclasses import replace

import pytest
import torch
from conftest import tiny_model
from test_parity_hf import our_model

from models.config import ModelConfig
from models.decoding_memory import decoding_memory
from models.inference import InferenceLlama

CPU = torch.device("cpu")


def model_of(size: ModelConfig, dtype: torch.dtype = torch.float64) -> InferenceLlama:
    return InferenceLlama(size, our_model(size).state_dict(), dtype=dtype, device=CPU)


def bytes_of(model: InferenceLlama) -> int:
    """Of everything that is learned; a matrix that serves twice counts once."""
    tensors = [t for matrix in model.matrices() for t in matrix.tensors()]
    tensors += [model.embedding, *([] if model.norm is None else [model.norm])]
    return sum({t.data_ptr(): t.nbytes for t in tensors}.values())


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("batch_size", "dtype"), [(1, torch.float32), (3, torch.bfloat16)])
def test_memory_is_that_of_the_tensors(batch_size: int, dtype: torch.dtype, tied: bool) -> None:
    size = tiny_model(tie_embeddings=tied)
    model, draft = model_of(size, dtype), model_of(replace(size, n_layers=2), dtype)
    found = decoding_memory(size, 40, dtype, batch_size=batch_size, exit_layer=2, num_speculations=3)
    assert found.keys_and_values == model.new_cache(40, batch_size).kv.nbytes
    assert found.draft_keys_and_values == draft.new_cache(40, batch_size).kv.nbytes
    assert found.draft_weights == bytes_of(draft)
    assert found.exit_states == model.embed(torch.zeros(batch_size, 4, dtype=torch.int64)).nbytes
    assert found.one_model == found.keys_and_values + found.exit_states
    assert found.two_models == found.keys_and_values + found.draft_keys_and_values + found.draft_weights
    assert str(found).startswith(f"memory: {found.keys_and_values / 1e6:,.1f} MB of keys and values, ")
    plain = decoding_memory(size, 40, dtype, batch_size=batch_size)
    assert (plain.one_model, plain.two_models) == (found.keys_and_values,) * 2


@pytest.mark.parametrize("n_tokens", [7, 8, 9, 23, 60])
def test_a_long_text_in_chunks_is_the_same_text(n_tokens: int) -> None:
    size = tiny_model()
    model, tokens = model_of(size), torch.randint(size.vocab_size, (2, n_tokens))
    layers, positions = range(size.n_layers), torch.arange(n_tokens)

    def states(chunk: int) -> tuple[torch.Tensor, torch.Tensor]:
        model.prefill_chunk = chunk
        cache = model.new_cache(n_tokens, 2)
        # In two passes, so that the second one does not begin at 0.
        with torch.inference_mode():
            x = [
                model.run(model.embed(tokens[:, at]), cache, positions[at], at.stop, layers)
                for at in (slice(0, 3), slice(3, n_tokens))
            ]
        return torch.cat(x, 1), cache.kv[:, :, :, :n_tokens]

    (x, kv), (in_chunks, kv_in_chunks) = states(64), states(8)
    torch.testing.assert_close(in_chunks, x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(kv_in_chunks, kv, rtol=1e-12, atol=1e-12)


def test_no_tensor_of_a_whole_long_text_is_wider_than_its_states(monkeypatch: pytest.MonkeyPatch) -> None:
    size = tiny_model(max_seq_len=512, vocab_size=2000)
    model, tokens = model_of(size), torch.randint(size.vocab_size, (1, 400))
    model.prefill_chunk, largest = 16, 0
    for matrix in model.matrices():
        times = matrix.times

        def seen(x: torch.Tensor, times=times) -> torch.Tensor:  # type: ignore[no-untyped-def]
            nonlocal largest
            out = times(x)
            largest = max(largest, out.numel())
            return out

        monkeypatch.setattr(matrix, "times", seen)
    with torch.inference_mode():
        x = model.run(model.embed(tokens), model.new_cache(400), torch.arange(400), 400, range(size.n_layers))
        model.logits(x[:, -1])
    assert largest == max(16 * 2 * size.ffn_dim, size.vocab_size)
