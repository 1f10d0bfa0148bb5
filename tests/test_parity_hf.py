"""Logits equal to transformers' Llama at tiny sizes, and the weights' names and layouts in both directions."""

import pytest
import torch
from conftest import tiny_model
from transformers import LlamaConfig, LlamaForCausalLM

from models.config import ModelConfig
from models.llama import LayerSkipLlama
from models.spec import llama_config
from models.storage.hf import from_hf, to_hf

SIZES = {
    "mha": {"n_kv_heads": None},
    "gqa": {"n_kv_heads": 2},
    "mqa": {"n_kv_heads": 1},
    "tied": {"tie_embeddings": True},
    "odd_heads": {"dim": 60, "n_heads": 3, "n_kv_heads": 3},
    "other_rope": {"rope_theta": 500000.0, "norm_eps": 1e-6},
}


def hf_model(size: ModelConfig) -> LlamaForCausalLM:
    torch.manual_seed(1)
    config = LlamaConfig(
        hidden_size=size.dim,
        num_hidden_layers=size.n_layers,
        num_attention_heads=size.n_heads,
        num_key_value_heads=size.kv_heads,
        intermediate_size=size.ffn_dim,
        vocab_size=size.vocab_size,
        max_position_embeddings=size.max_seq_len,
        rms_norm_eps=size.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": size.rope_theta},
        tie_word_embeddings=size.tie_embeddings,
        initializer_range=0.2,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def our_model(size: ModelConfig) -> LayerSkipLlama:
    torch.manual_seed(2)
    model = llama_config(size).build()
    model.init_states()
    return model


@pytest.mark.parametrize("changes", SIZES.values(), ids=SIZES.keys())
def test_logits_equal_transformers(changes: dict) -> None:
    size = tiny_model(**changes)
    theirs, ours = hf_model(size), our_model(size)
    ours.load_state_dict(from_hf(theirs.state_dict(), size))
    tokens = torch.randint(size.vocab_size, (2, 33))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=1e-4, atol=1e-4)
        # Every exit is the final norm and the head over the hidden state after that many blocks.
        hidden = theirs(tokens, output_hidden_states=True).hidden_states
        exits = ours(tokens, exits=(0, 1, 2)).chunk(3)
        for exit_layer in (1, 2, 3):
            logits = theirs.lm_head(theirs.model.norm(hidden[exit_layer]))
            torch.testing.assert_close(exits[exit_layer - 1], logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changes", SIZES.values(), ids=SIZES.keys())
def test_round_trip_is_bitwise(changes: dict) -> None:
    size = tiny_model(**changes)
    ours = our_model(size).state_dict()
    back = from_hf(to_hf(ours, size), size)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)
    theirs = hf_model(size)
    names = {n for n in theirs.state_dict() if not (size.tie_embeddings and n == "lm_head.weight")}
    assert to_hf(ours, size).keys() == names


def test_missing_and_unknown_tensors_are_named() -> None:
    size = tiny_model()
    weights = to_hf(our_model(size).state_dict(), size)
    with pytest.raises(ValueError, match=r"unknown tensors: model\.layers\.0\.bias"):
        from_hf(weights | {"model.layers.0.bias": torch.zeros(1)}, size)
    del weights["model.norm.weight"]
    with pytest.raises(ValueError, match=r"missing tensors: model\.norm\.weight"):
        from_hf(weights, size)
