"""A run that starts from a model: its sizes, its tokenizer, its weights; and what does not fit told in one line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import compose_config, run_ranks, tiny_model
from safetensors.torch import load_file
from test_convert import call, scaled_model
from test_parity_hf import hf_model
from training import full_state, train
from transformers import AutoModelForCausalLM

from conf.strict import ConfigError
from eval.engine.language_model import load
from models.config import ModelConfig
from models.storage.stored import read

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with odd sizes, several shards and a SentencePiece tokenizer."""
    folder = tmp_path_factory.mktemp("hf") / "odd"
    size = ModelConfig(
        name="odd", dim=36, n_layers=3, n_heads=3, n_kv_heads=1, ffn_dim=40, vocab_size=400, max_seq_len=64
    )
    hf_model(size).save_pretrained(folder, max_shard_size="50KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    shutil.copy(trained / "tokenizer.model", folder)
    return folder


def run(*overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "train.pretrain", *overrides]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_a_run_starts_from_the_weights(folder: Path, tiny_run: list[str], tmp_path: Path) -> None:
    """With a learning rate of next to nothing, what comes out is what went in."""
    run_dir = tmp_path / "run"
    overrides = [o for o in tiny_run if not o.startswith("model.")]
    overrides += ["model=initial", f"checkpoint.initial={folder}", f"run_dir={run_dir}", "optimizer.lr=1e-12"]
    overrides += ["early_exit=all", "train.steps=2", "checkpoint.every=1", "validation.every=2", "train.precision=fp32"]
    result = run(*overrides)
    assert result.returncode == 0, result.stderr
    assert "starting from the weights of" in result.stderr
    before, after = read(folder).weights, read(run_dir).weights
    assert before.keys() == after.keys()
    for name in before:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-7)
    assert load(run_dir).tokenizer.files == load(folder).tokenizer.files
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert "val/ppl/exit_03" in rows[-1]
    again = run(*overrides)
    assert again.returncode == 0
    assert "is finished" in again.stderr


def two_steps(rank: int, folder: Path, overrides: list[str]) -> None:
    state = full_state(train(rank, folder, overrides))
    tied = torch.equal(state["tok_embeddings.weight"], state["lm_head.weight"])
    (folder / "tied").write_text(str(tied))


@pytest.mark.parametrize("family", ["tied", "tied_run", "gqa", "mha_half", "rope_scaling"])
def test_every_family_from_folder_to_training_to_export(
    family: str, folder: Path, tiny_run: list[str], tmp_path: Path
) -> None:
    """With a learning rate of next to nothing: exported is what was there, tied where it was, in transformers too."""
    changes = {"tied": {"tie_embeddings": True}, "mha_half": {"n_kv_heads": 4}}.get(family.removesuffix("_run"), {})
    theirs = (
        scaled_model(vocab_size=400) if family == "rope_scaling" else hf_model(tiny_model(vocab_size=400, **changes))
    )
    source, run_dir = tmp_path / "source", tmp_path / "run"
    (theirs.to(torch.bfloat16) if family == "mha_half" else theirs).save_pretrained(source)
    shutil.copy(folder / "tokenizer.model", source)
    overrides = [o for o in tiny_run if not o.startswith("model.")]
    overrides += ["optimizer.lr=1e-12", "early_exit=all", "train.steps=2", "checkpoint.every=2", "train.precision=fp32"]
    overrides += ["model=initial", "layer_dropout=none"]
    initial = source
    if family == "tied_run":
        initial = tmp_path / "first"
        run_ranks(two_steps, 1, initial, [*overrides, f"checkpoint.initial={source}"])
    run_ranks(two_steps, 1, run_dir, [*overrides, f"checkpoint.initial={initial}"])
    assert (run_dir / "tied").read_text() == str("tied" in family)
    exported = call(run_dir, tmp_path / "exported")
    before, after = load_file(source / "model.safetensors"), load_file(exported / "model.safetensors")
    assert before.keys() == after.keys()
    for name in before:
        torch.testing.assert_close(after[name], before[name].float(), rtol=0, atol=1e-7)
    assert AutoModelForCausalLM.from_pretrained(exported).config.tie_word_embeddings == ("tied" in family)


def test_what_does_not_fit_is_told(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"model=initial: needs checkpoint\.initial"):
        compose_config("model=initial")
    with pytest.raises(ConfigError, match=r"model\.dim=128: checkpoint\.initial has 36; take model=initial"):
        compose_config("model=llama_demo", f"checkpoint.initial={folder}")


def test_the_tokenizer_comes_along_unless_another_is_named(folder: Path) -> None:
    start = ["model=initial", f"checkpoint.initial={folder}", "train.seq_len=32"]
    plain = compose_config(*start)
    assert plain.data.tokenizer.path == str(folder)
    assert plain.model.dim == 36
    other = compose_config(
        "model=initial", f"checkpoint.initial={folder}", "train.seq_len=32", "data.tokenizer.path=x.model"
    )
    assert other.data.tokenizer.path == "x.model"
