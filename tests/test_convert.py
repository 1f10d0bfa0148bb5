"""In and out of Hugging Face and GGUF: bitwise round trips, logits of transformers, and what is refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from conftest import tiny_model
from hydra import compose, initialize_config_module
from safetensors.torch import load_file, save_file
from test_parity_hf import SIZES, hf_model, our_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from conf.strict import ConfigError, register_schema
from eval.engine.decoding import Engine
from eval.engine.language_model import load
from eval.engine.policy import Autoregressive
from eval.engine.stopping import StopRule
from models.convert import convert_model
from models.convert_config import ConvertConfig
from models.inference import InferenceLlama
from models.storage.errors import FormatError
from models.storage.gguf.file import LAYER, TOP
from models.storage.hf import hf_name
from models.storage.hf_index import INDEX
from models.storage.stored import read

register_schema("convert", ConvertConfig)
SCALED = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


def call(source: Path, output: Path, *overrides: str) -> Path:
    with initialize_config_module("conf", version_base="1.3"):
        convert_model(compose("convert", [f"source={source}", f"output={output}", *overrides]))
    return output


def logits(path: Path, tokens: torch.Tensor) -> torch.Tensor:
    stored, n = read(path), tokens.shape[1]
    model = InferenceLlama(stored.size, stored.weights, dtype=torch.float32, device=torch.device("cpu"))
    with torch.inference_mode():
        x = model.run(model.embed(tokens), model.new_cache(n), torch.arange(n), n, range(stored.size.n_layers))
        return model.logits(x).clone()


def their_logits(path: Path, tokens: torch.Tensor) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(tokens).logits


def save(theirs: LlamaForCausalLM, folder: Path, shard: str = "1GB") -> Path:
    theirs.save_pretrained(folder, max_shard_size=shard)
    return folder


def scaled_model(**changes: Any) -> LlamaForCausalLM:
    theirs = hf_model(tiny_model(**changes))
    config = LlamaConfig(**theirs.config.to_dict() | {"rope_parameters": SCALED})
    other = LlamaForCausalLM(config).eval()
    other.load_state_dict(theirs.state_dict())
    return other


FAMILIES: dict[str, Callable[[], LlamaForCausalLM]] = {
    **{name: (lambda c=changes: hf_model(tiny_model(**c))) for name, changes in SIZES.items()},  # type: ignore[misc]
    "rope_scaling": scaled_model,
    "half": lambda: hf_model(tiny_model()).to(torch.bfloat16),
}


@pytest.mark.parametrize("shard", ["1GB", "20KB"], ids=["one_file", "shards"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_round_trip(family: str, shard: str, tmp_path: Path) -> None:
    """Folder -> checkpoint -> folder: the same tensors, bit for bit; and transformers' logits at every stage."""
    theirs = FAMILIES[family]()
    hf = save(theirs, tmp_path / "hf", shard)
    tokens = torch.randint(theirs.config.vocab_size, (1, 40))
    expected = their_logits(hf, tokens)
    dcp = call(hf, tmp_path / "dcp")
    back = call(dcp, tmp_path / "back", "max_shard_gigabytes=0.00002")
    for path in (hf, dcp, back):
        torch.testing.assert_close(logits(path, tokens), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(their_logits(back, tokens), expected, rtol=0, atol=0)
    before, after = ({k: v for f in d.glob("*.safetensors") for k, v in load_file(f).items()} for d in (hf, back))
    assert before.keys() == after.keys()
    assert all(before[k].dtype == after[k].dtype and torch.equal(before[k], after[k]) for k in before)
    assert len(list(back.glob("*.safetensors"))) > 1
    assert read(back).size == read(hf).size.__class__(**vars(read(hf).size) | {"name": "back"})


def test_the_training_model_has_the_scaled_frequencies_too(tmp_path: Path) -> None:
    hf = save(scaled_model(), tmp_path / "hf")
    stored = read(hf)
    ours = our_model(stored.size)
    ours.load_state_dict({n: stored.weights[n] for n in stored.weights})
    tokens = torch.randint(stored.size.vocab_size, (1, 60))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), their_logits(hf, tokens), rtol=1e-4, atol=1e-4)


def test_dtype(tmp_path: Path) -> None:
    hf = save(hf_model(tiny_model()), tmp_path / "hf")
    out = call(hf, tmp_path / "half", "format=hf", "dtype=bfloat16")
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    assert all(t.dtype is torch.bfloat16 for t in load_file(out / "model.safetensors").values())


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in (config | changes).items() if v != "drop"}))


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def truncate(file: Path, n_bytes: int) -> None:
    file.write_bytes(file.read_bytes()[:n_bytes])


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "architecture": (lambda f: edit_config(f, model_type="gpt_neox"), "model_type 'gpt_neox' is not 'llama'"),
    "rope": (lambda f: edit_config(f, rope_parameters={"rope_type": "yarn"}), "RoPE type 'yarn' is not supported"),
    "old rope": (
        lambda f: edit_config(f, rope_parameters="drop", rope_scaling={"type": "linear", "factor": 2}),
        "RoPE type 'linear' is not supported",
    ),
    "half of llama3": (
        lambda f: edit_config(f, rope_parameters={"rope_type": "llama3", "factor": 8.0}),
        "RoPE type llama3 lacks low_freq_factor",
    ),
    "bias": (lambda f: edit_config(f, attention_bias=True), "attention_bias=True is not supported"),
    "activation": (lambda f: edit_config(f, hidden_act="gelu"), "hidden_act='gelu' is not supported"),
    "quantized": (lambda f: edit_config(f, quantization_config={"bits": 4}), "quantization_config={'bits': 4} is not"),
    "missing size": (lambda f: edit_config(f, hidden_size="drop"), "missing or no whole number: hidden_size"),
    "impossible size": (lambda f: edit_config(f, num_key_value_heads=3), "model.n_kv_heads=3: must divide"),
    "head_dim": (lambda f: edit_config(f, head_dim=16), "head_dim=16 is not supported"),
    "broken json": (lambda f: truncate(f / "config.json", 50), "config.json: cannot be read"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no .safetensors file"),
    "truncated": (lambda f: truncate(f / "model.safetensors", 30000), "model.safetensors: incomplete or damaged"),
    "truncated header": (lambda f: truncate(f / "model.safetensors", 5), "model.safetensors: incomplete or damaged"),
    "missing tensor": (
        lambda f: edit_tensors(f, lambda t: t.pop("model.layers.2.mlp.up_proj.weight")),
        "missing tensor model.layers.2.mlp.up_proj.weight",
    ),
    "unknown tensor": (
        lambda f: edit_tensors(f, lambda t: t.update({"model.layers.9.x": torch.zeros(1)})),
        "unknown tensor model.layers.9.x",
    ),
    "wrong shape": (
        lambda f: edit_tensors(f, lambda t: t.update({"model.norm.weight": torch.zeros(3)})),
        "wrong shape of tensor model.norm.weight ([3], not [32])",
    ),
    "integers": (
        lambda f: edit_tensors(f, lambda t: t.update({"model.norm.weight": torch.zeros(32, dtype=torch.int8)})),
        "model.norm.weight has dtype I8",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_no_model_is_refused_by_name_and_leaves_nothing(damage: str, tmp_path: Path) -> None:
    folder = save(hf_model(tiny_model()), tmp_path / "hf")
    change, message = DAMAGE[damage]
    change(folder)
    with pytest.raises(FormatError) as error:
        call(folder, tmp_path / "out")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).count("config.json: ") <= 1
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]


def test_shards_that_are_missing_damaged_or_swapped(tmp_path: Path) -> None:
    folder = save(hf_model(tiny_model()), tmp_path / "hf", "20KB")
    first, second, *_ = sorted(folder.glob("*.safetensors"))
    whole = second.read_bytes()
    second.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match=rf"{second.name}: incomplete or damaged"):
        read(folder)
    second.unlink()
    with pytest.raises(FormatError, match=rf"{second.name}: missing, though {INDEX} names it"):
        read(folder)
    second.write_bytes(first.read_bytes())
    with pytest.raises(FormatError, match=rf"{second.name}: lacks tensor .* which {INDEX} places there"):
        read(folder)


def test_an_existing_output_is_left_alone(tmp_path: Path) -> None:
    folder = save(hf_model(tiny_model()), tmp_path / "hf")
    with pytest.raises(ConfigError, match="exists; choose another"):
        call(folder, folder)
    with pytest.raises(ConfigError, match=r"output=/proc/x: "):
        call(folder, Path("/proc/x"))


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(hf_model(tiny_model()), tmp_path / "hf")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("models.storage.write_hf.save_file", full)
    with pytest.raises(ConfigError, match="No space left"):
        call(folder, tmp_path / "out", "format=hf")
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]


def test_an_exported_run_works_in_transformers(trained: Path, tmp_path: Path) -> None:
    out = call(trained, tmp_path / "export")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out).eval(), AutoTokenizer.from_pretrained(out)
    loaded = load(trained)
    ours, our_tokenizer = loaded.model, loaded.tokenizer
    names = "html: <s>struck</s>, <unk> and <s>\n</s>"
    for text in ("def f(x):\n\treturn  x\r\n", "naïve 漢字 \U0001f600", "import os", "", names):
        ids = tokenizer(text).input_ids
        assert ids == our_tokenizer.encode_prompt(text)
        assert tokenizer(text, add_special_tokens=False).input_ids == our_tokenizer.encode(text)
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    prompt = our_tokenizer.encode_prompt("import os")
    stop = StopRule(max_new_tokens=20, eos_ids=frozenset({our_tokenizer.eos_id}))
    expected = [t for r in Engine(ours).generate(prompt, Autoregressive(), stop) for t in r.tokens]
    inputs = {"input_ids": torch.tensor([prompt]), "attention_mask": torch.ones(1, len(prompt), dtype=torch.long)}
    for early_exit in ({}, {"assistant_early_exit": 2}):
        text = model.generate(**inputs, max_new_tokens=20, do_sample=False, **early_exit)[0, len(prompt) :].tolist()
        assert text == expected
    card = (out / "README.md").read_text()
    assert "| early_exit.curriculum | all |" in card
    assert "Held-out perplexity by exit, step 40" in card
    again = load(out).model
    assert torch.equal(again.head.weight, ours.head.weight)


@pytest.mark.parametrize("speedup", [1.5, 0.15])
def test_the_card_recommends_what_was_measured(trained: Path, tmp_path: Path, speedup: float) -> None:
    row = {"mode": "self_speculative", "exit_layer": 2, "num_speculations": 5, "speedup": speedup}
    machine = {"acceptance_rate": 0.5, "hardware": "h", "threads": 1, "dtype": "float32", "commit": "abc"}
    try:
        (trained / "benchmark.json").write_text(json.dumps([row | machine]))
        out = call(trained, tmp_path / "export")
    finally:
        (trained / "benchmark.json").unlink()
    card = (out / "README.md").read_text()
    assert f"`exit_layer=2`, `num_speculations=5`: {speedup:.2f} times the speed of autoregressive decoding" in card
    assert ("## Recommended\n\nAutoregressive decoding." in card) == (speedup < 1)
    assert ("do_sample=False, assistant_early_exit=2)" in card) == (speedup > 1)
    assert json.loads((out / "benchmark.json").read_text())[0] == row | machine


def test_a_tokenizer_json_goes_along_with_what_begins_and_ends_a_text(trained: Path, tmp_path: Path) -> None:
    export = call(trained, tmp_path / "export")
    (export / "tokenizer.model").unlink()
    dcp = call(export, tmp_path / "dcp")
    back = call(dcp, tmp_path / "back")
    config = json.loads((back / "config.json").read_text())
    ours = load(trained).tokenizer
    assert (config["bos_token_id"], config["eos_token_id"]) == (ours.bos_id, ours.eos_id)
    for path in (export, dcp, back):
        tokenizer = load(path).tokenizer
        assert tokenizer.encode_prompt("import os\n") == ours.encode_prompt("import os\n")
        assert tokenizer.encode_document("a </s> b") == ours.encode_document("a </s> b")
        assert tokenizer.token_bytes() == ours.token_bytes()
        assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (ours.bos_id, ours.eos_id, ours.vocab_size)
    (dcp / "tokenizer.json").unlink()
    (dcp / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(FormatError, match="missing, or not a SentencePiece model"):
        call(dcp, tmp_path / "without")


def write_gguf(file: Path, theirs: LlamaForCausalLM, kind: gguf.GGMLQuantizationType, **fields: Any) -> None:
    """As llama.cpp's converter writes it: query and key rows in neighbouring pairs, matrices quantized."""
    config, weights = theirs.config, theirs.state_dict()
    writer = gguf.GGUFWriter(file, fields.pop("architecture", "llama"))
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    names = {
        **TOP,
        **{f"layers.{i}.{n}": f"blk.{i}.{g}" for i in range(config.num_hidden_layers) for n, g in LAYER.items()},
    }
    for ours, name in names.items():
        if ours == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = weights[hf_name(ours)].float().numpy()
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            heads = config.num_attention_heads if "attn_q" in name else config.num_key_value_heads
            array = array.reshape(heads, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        plain = array.ndim == 1
        stored = gguf.GGMLQuantizationType.F32 if plain else kind
        data = np.ascontiguousarray(array) if plain else gguf.quants.quantize(array, kind)
        writer.add_tensor(fields.get("rename", {}).get(name, name), data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


KINDS = ["F32", "F16", "Q8_0", "Q4_1"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_gguf(kind: str, tied: bool, tmp_path: Path) -> None:
    theirs = hf_model(tiny_model(dim=64, ffn_dim=96, tie_embeddings=tied))
    file = tmp_path / "model.gguf"
    write_gguf(file, theirs, gguf.GGMLQuantizationType[kind])
    stored = read(file)
    tokens = torch.randint(stored.size.vocab_size, (1, 30))
    assert stored.size.tie_embeddings is tied
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(logits(file, tokens), reference(tokens).logits, rtol=1e-4, atol=1e-4)
        if kind == "F32":
            torch.testing.assert_close(logits(file, tokens), theirs(tokens).logits, rtol=1e-4, atol=1e-4)


def test_gguf_that_is_none_or_another(tmp_path: Path) -> None:
    theirs, file = hf_model(tiny_model(dim=64, ffn_dim=96)), tmp_path / "model.gguf"
    write_gguf(file, theirs, gguf.GGMLQuantizationType.F32, architecture="qwen2")
    with pytest.raises(FormatError, match="architecture 'qwen2' is not 'llama'"):
        read(file)
    write_gguf(file, theirs, gguf.GGMLQuantizationType.F32, rename={"blk.1.ffn_up.weight": "blk.1.ffn_down.bias"})
    with pytest.raises(FormatError, match=r"missing tensor blk\.1\.ffn_up\.weight"):
        read(file)
    write_gguf(file, theirs, gguf.GGMLQuantizationType.F32)
    truncate(file, file.stat().st_size // 2)
    with pytest.raises(FormatError, match=r"model\.gguf: incomplete, damaged or no GGUF file"):
        read(file)
    file.write_bytes(b"something else")
    with pytest.raises(FormatError, match=r"model\.gguf: incomplete, damaged or no GGUF file"):
        read(file)
    with pytest.raises(FormatError, match=r"none\.gguf: no such file"):
        read(tmp_path / "none.gguf")


def test_a_model_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub itself cannot be had here; what it would download can."""
    folder = save(hf_model(tiny_model()), tmp_path / "hf")
    asked = []

    def download(name: str, **_: Any) -> str:
        asked.append(name)
        if name == "nobody/nothing":
            raise OSError("offline\nand more")
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert read("hf://org/name").size == read(folder).size
    assert asked == ["org/name"]
    with pytest.raises(FormatError, match=r"^hf://nobody/nothing: cannot be had .* \(offline\)$"):
        read("hf://nobody/nothing")


def test_nothing_is_held_that_was_not_asked_for(tmp_path: Path) -> None:
    """Tensors own their memory: the file may go, and no view keeps all of it mapped."""
    folder = save(hf_model(tiny_model()), tmp_path / "hf")
    weights = read(folder).weights
    tensors = {name: weights[name] for name in weights}
    assert all(t.untyped_storage().nbytes() == t.nbytes for t in tensors.values())
    shutil.rmtree(folder)
    assert all(torch.isfinite(t).all() for t in tensors.values())
