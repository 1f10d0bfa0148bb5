"""GGUF files written and read back: bit for bit by us, by transformers, and their tokenizers token for token."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from conftest import tiny_model
from test_chat import TEMPLATE
from test_convert import SCALED, call, logits, save, scaled_model, their_logits
from test_json_tokenizer import TEXTS, byte_level_bpe
from test_parity_hf import hf_model
from test_tiktoken import MERGED, content
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from conf.strict import ConfigError
from eval.engine.language_model import load
from models.storage.errors import FormatError
from models.storage.gguf.pre_tokenizers import KNOWN
from models.storage.hf_tokenizer import write_tokenizer
from models.storage.stored import read

TOKENS = torch.tensor([[5, 90, 17, 3, 60, 44, 8, 1, 2, 77]])
MORE_TEXTS = [
    *TEXTS,
    "1234567 and 12.5e-9",
    "import os\n\n\nclass A:\n    pass  # it's we'll I'LL",
    " leading",
    "trailing ",
]


def from_gguf(file: Path, tokens: torch.Tensor) -> torch.Tensor:
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    with torch.no_grad():
        return theirs(tokens).logits


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_float32_is_bitwise(tied: bool, tmp_path: Path) -> None:
    hf = save(hf_model(tiny_model(n_kv_heads=2, tie_embeddings=tied, norm_eps=1e-6)), tmp_path / "hf")
    file = call(hf, tmp_path / "model.gguf")
    before, after = read(hf), read(file)
    assert after.size.__class__(**vars(after.size) | {"name": "hf"}) == before.size
    assert list(after.weights) == list(before.weights)
    assert all(torch.equal(after.weights[name], before.weights[name]) for name in before.weights)
    assert torch.equal(from_gguf(file, TOKENS), their_logits(hf, TOKENS))
    back = call(file, tmp_path / "back")
    assert torch.equal(their_logits(back, TOKENS), their_logits(hf, TOKENS))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "q8_0"])
def test_other_numbers(dtype: str, tmp_path: Path) -> None:
    hf = save(hf_model(tiny_model(dim=64, ffn_dim=96)), tmp_path / "hf")
    file = call(hf, tmp_path / "model.gguf", f"dtype={dtype}")
    before, after = read(hf).weights, read(file).weights
    for name in before:
        expected = before[name]
        if expected.ndim == 2 and dtype == "q8_0":
            packed = gguf.quants.quantize(expected.numpy(), gguf.GGMLQuantizationType.Q8_0)
            expected = torch.from_numpy(gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q8_0))
            steps = before[name].view(-1, 32).abs().amax(1, keepdim=True) / 127
            assert ((expected - before[name]).view(-1, 32).abs() <= 0.6 * steps).all()
        elif expected.ndim == 2:
            expected = expected.to(getattr(torch, dtype)).float()
        assert torch.equal(after[name], expected), name
    torch.testing.assert_close(from_gguf(file, TOKENS), logits(file, TOKENS), rtol=1e-4, atol=1e-4)
    assert file.stat().st_size < (1.2 if dtype == "q8_0" else 2.1) * sum(before[name].numel() for name in before) + 4096


def test_a_source_of_bfloat16_stays_so(tmp_path: Path) -> None:
    hf = save(hf_model(tiny_model()).to(torch.bfloat16), tmp_path / "hf")
    tensors = {t.name: t for t in gguf.GGUFReader(call(hf, tmp_path / "model.gguf")).tensors}
    assert tensors["blk.0.attn_q.weight"].tensor_type.name == "BF16"
    assert tensors["blk.0.attn_norm.weight"].tensor_type.name == "F32", "llama.cpp has norms in no other form"


def test_the_scaling_of_frequencies(tmp_path: Path) -> None:
    hf = save(scaled_model(), tmp_path / "hf")
    file = call(hf, tmp_path / "model.gguf")
    size = read(file).size
    assert size.__class__(**vars(size) | {"name": "hf"}) == read(hf).size
    tokens = torch.randint(96, (1, 40))
    torch.testing.assert_close(logits(file, tokens), their_logits(hf, tokens), rtol=1e-4, atol=1e-4)
    [factors] = [t.data for t in gguf.GGUFReader(file).tensors if t.name == "rope_freqs.weight"]
    assert (factors.dtype, factors.shape) == (np.float32, (4,))
    assert (np.diff(factors) >= 0).all()
    assert 1 < factors[0] < factors[-1] == SCALED["factor"], "the slowest turns are divided by all of it"


def test_the_first_layers(trained: Path, tmp_path: Path) -> None:
    file, hf = (call(trained, tmp_path / name, "exit_layer=2") for name in ("draft.gguf", "draft"))
    assert read(file).size.n_layers == 2
    assert torch.equal(from_gguf(file, TOKENS), their_logits(hf, TOKENS))
    fields = gguf.GGUFReader(file).fields
    assert fields["general.name"].contents() == f"{read(trained).size.name}, the first 2 layers"
    assert "The first 2 of 4 layers" in fields["general.description"].contents()


def same_tokens(one: Any, other: Any) -> None:
    for text in MORE_TEXTS:
        assert one.encode_prompt(text) == other.encode_prompt(text), text
        assert one.encode_document(text) == other.encode_document(text), text
    assert one.token_bytes() == other.token_bytes()
    assert (one.bos_id, one.eos_id, one.vocab_size) == (other.bos_id, other.eos_id, other.vocab_size)


def test_the_sentencepiece_model_of_a_run(trained: Path, tmp_path: Path) -> None:
    """Also through tokenizer.json alone, of which the scores are made from the order of the merges."""
    ours = load(trained).tokenizer
    same_tokens(load(call(trained, tmp_path / "run.gguf")).tokenizer, ours)
    hf = call(trained, tmp_path / "hf")
    (hf / "tokenizer.model").unlink()
    same_tokens(load(call(hf, tmp_path / "hf.gguf")).tokenizer, ours)
    fields = gguf.GGUFReader(tmp_path / "run.gguf").fields
    assert fields["tokenizer.ggml.model"].contents() == "llama"
    assert fields["tokenizer.ggml.add_space_prefix"].contents() is False
    assert fields["tokenizer.ggml.add_bos_token"].contents() is True


def folder_with(theirs: LlamaForCausalLM, folder: Path, pre: str) -> Path:
    """A Hugging Face folder with a byte-level tokenizer that splits like this."""
    byte_level_bpe(save(theirs, folder))
    file = folder / "tokenizer.json"
    layout = json.loads(file.read_text())
    layout["pre_tokenizer"] = KNOWN[pre]
    file.write_text(json.dumps(layout))
    return folder


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2"])
def test_byte_level_tokenizers(pre: str, tmp_path: Path) -> None:
    hf = folder_with(hf_model(tiny_model(vocab_size=410)), tmp_path / "hf", pre)
    (hf / "chat_template.jinja").write_text(TEMPLATE)
    file = call(hf, tmp_path / "model.gguf")
    ours, theirs = load(file).tokenizer, load(hf).tokenizer
    for text in MORE_TEXTS:
        assert ours.encode_prompt(text) == theirs.encode_prompt(text), text
    fields = gguf.GGUFReader(file).fields
    assert fields["tokenizer.ggml.pre"].contents() == pre
    assert fields["tokenizer.chat_template"].contents() == TEMPLATE
    assert len(fields["tokenizer.ggml.tokens"].contents()) == 410, "one for each row of the embedding"
    back = call(file, tmp_path / "back")
    assert (back / "chat_template.jinja").read_text() == TEMPLATE
    if pre == "qwen2":  # transformers does not know how SmolLM's splits digits
        again = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
        assert all(again(t).input_ids == theirs.encode_prompt(t) for t in MORE_TEXTS)


def test_llama_3s_tokenizer(tmp_path: Path) -> None:
    hf = save(hf_model(tiny_model(vocab_size=600)), tmp_path / "hf")
    source = tmp_path / "tokenizer.model"
    source.write_bytes(content([*(bytes([b]) for b in range(256)), *(word.encode() for word in MERGED)]))
    write_tokenizer(source, hf, 64)
    file = call(hf, tmp_path / "model.gguf")
    assert gguf.GGUFReader(file).fields["tokenizer.ggml.pre"].contents() == "llama-bpe"
    ours, theirs = load(file).tokenizer, AutoTokenizer.from_pretrained(hf)
    for text in MORE_TEXTS:
        assert ours.encode_prompt(text) == theirs(text).input_ids, text


def unigram(folder: Path) -> None:
    layout = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(layout | {"model": {"type": "Unigram", "vocab": [["a", 0.0]]}}))


def another_split(folder: Path) -> None:
    layout = json.loads((folder / "tokenizer.json").read_text())
    layout["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [{"type": "Whitespace"}, layout["pre_tokenizer"]],
    }
    (folder / "tokenizer.json").write_text(json.dumps(layout))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unigram, "Unigram is not supported in a GGUF file, only BPE is"),
        (another_split, "splits text in a way that has no name in GGUF here"),
    ],
)
def test_tokenizers_that_gguf_has_no_name_for(change: Any, message: str, tmp_path: Path) -> None:
    hf = folder_with(hf_model(tiny_model(vocab_size=410)), tmp_path / "hf", "gpt-2")
    change(hf)
    with pytest.raises(FormatError, match=message) as error:
        call(hf, tmp_path / "model.gguf")
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]


def test_more_tokens_than_rows(tmp_path: Path) -> None:
    hf = folder_with(hf_model(tiny_model()), tmp_path / "hf", "gpt-2")
    with pytest.raises(FormatError, match=r"the tokenizer has \d+ tokens, the embedding only 96 rows"):
        call(hf, tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("output", "keys", "message"),
    [
        ("model", ["format=gguf"], "must end in .gguf with format=gguf"),
        ("model.gguf", ["format=hf"], "ends in .gguf, but format=hf writes a folder"),
        ("model", ["dtype=q8_0"], "dtype=q8_0: is of GGUF files alone"),
    ],
)
def test_forms_that_do_not_fit(output: str, keys: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        call(tmp_path, tmp_path / output, *keys)


def test_rows_that_blocks_do_not_divide(tmp_path: Path) -> None:
    hf = save(hf_model(tiny_model()), tmp_path / "hf")
    with pytest.raises(FormatError, match=r"dtype=q8_0: layers\.0\..*w2\.weight has rows of 48 numbers.*of 32"):
        call(hf, tmp_path / "model.gguf", "dtype=q8_0")
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]
