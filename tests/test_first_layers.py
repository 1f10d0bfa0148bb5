"""models.convert exit_layer=E: the first layers as a Llama of their own, which computes early exit and drafts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_model
from test_convert import call, save
from test_parity_hf import hf_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from conf.strict import ConfigError
from eval.engine.decoding import Engine
from eval.engine.language_model import load
from eval.engine.policy import Autoregressive, EarlyExit
from eval.engine.stopping import StopRule
from models.storage.errors import FormatError
from models.storage.stored import read


@pytest.mark.parametrize("exit_layer", [1, 2, 3])
def test_transformers_computes_our_early_exit(trained: Path, tmp_path: Path, exit_layer: int) -> None:
    out = call(trained, tmp_path / "draft", f"exit_layer={exit_layer}")
    theirs, ours = AutoModelForCausalLM.from_pretrained(out).eval(), load(trained)
    prompt = ours.tokenizer.encode_prompt("import os\n\ndef f(x):\n    return")
    with torch.no_grad():
        logits = theirs(torch.tensor([prompt])).logits[0]
    [expected] = ours.exit_logits(["import os\n\ndef f(x):\n    return"], exit_layer)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    stop = StopRule(max_new_tokens=12, eos_ids=frozenset())
    alone, exited = (
        [t for r in Engine(model).generate(prompt, policy, stop) for t in r.tokens]
        for model, policy in ((load(out).model, Autoregressive()), (ours.model, EarlyExit(exit_layer)))
    )
    assert alone == exited
    assert read(out).size.n_layers == theirs.config.num_hidden_layers == exit_layer


def test_it_drafts_for_the_whole_in_transformers(trained: Path, tmp_path: Path) -> None:
    """The text is that of plain decoding, and some of it was drafted."""
    whole, draft = call(trained, tmp_path / "whole"), call(trained, tmp_path / "draft", "exit_layer=2")
    model, assistant = (AutoModelForCausalLM.from_pretrained(path).eval() for path in (whole, draft))
    tokenizer = AutoTokenizer.from_pretrained(draft)
    assert tokenizer.get_vocab() == AutoTokenizer.from_pretrained(whole).get_vocab()
    inputs = tokenizer("import os\n", return_tensors="pt")
    passes: list[int] = []
    model.register_forward_hook(lambda *_: passes.append(1))
    kinds: list[dict[str, Any]] = [{}, {"assistant_model": assistant}]
    texts = [model.generate(**inputs, max_new_tokens=24, do_sample=False, **kind)[0].tolist() for kind in kinds]
    n_new = len(texts[0]) - inputs["input_ids"].shape[1]
    assert texts[0] == texts[1]
    assert n_new <= len(passes) < 2 * n_new, "with drafts the whole model passes less often"


def test_the_card_says_what_it_is_the_draft_of(trained: Path, tmp_path: Path) -> None:
    row = {"mode": "self_speculative", "exit_layer": 2, "num_speculations": 5, "speedup": 1.5}
    try:
        (trained / "benchmark.json").write_text(json.dumps([row]))
        out = call(trained, tmp_path / "draft", "exit_layer=2")
    finally:
        (trained / "benchmark.json").unlink()
    card = (out / "README.md").read_text()
    assert f"the first 2 of the 4 layers of {read(trained).size.name}" in card
    assert f"the run `{trained.name}` (`step-40`)" in card
    assert card.count("| early_exit.curriculum | all |") == 1
    exits = card[card.index("## Held-out") : card.index("## Use")]
    assert [line.split()[1] for line in exits.splitlines() if line[:3] in {f"| {e}" for e in range(9)}] == ["2", "4"]
    assert f'"method": "draft_model", "model": "{out}"' in card
    assert "assistant_model=draft" in card
    assert not (out / "benchmark.json").exists(), "what was measured is the whole model's setting"


def test_tied_embeddings_and_other_forms(tmp_path: Path) -> None:
    whole = save(hf_model(tiny_model(tie_embeddings=True)), tmp_path / "hf")
    draft = call(whole, tmp_path / "draft", "exit_layer=2", "dtype=bfloat16")
    config = json.loads((draft / "config.json").read_text())
    assert (config["num_hidden_layers"], config["tie_word_embeddings"], config["dtype"]) == (2, True, "bfloat16")
    checkpoint = read(call(whole, tmp_path / "dcp", "exit_layer=2", "format=dcp"))
    assert checkpoint.run is not None
    assert checkpoint.size.n_layers == 2
    assert all(torch.equal(checkpoint.weights[name], read(whole).weights[name]) for name in checkpoint.weights)


@pytest.mark.parametrize("exit_layer", [4, 5])
def test_exits_that_leave_nothing_out(tmp_path: Path, exit_layer: int) -> None:
    whole = save(hf_model(tiny_model()), tmp_path / "hf")
    with pytest.raises(FormatError, match=rf"^exit_layer={exit_layer}: must lie in 1\.\.3 of hf's 4 layers$"):
        call(whole, tmp_path / "out", f"exit_layer={exit_layer}")
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]


def test_no_layers_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exit_layer=0: must be at least 1"):
        call(tmp_path, tmp_path / "out", "exit_layer=0")
