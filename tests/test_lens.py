"""The lens' numbers against every exit's own logits, where predictions settle by hand, and the command."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_model
from hydra import compose, initialize_config_module
from test_parity_hf import our_model

from conf.strict import ConfigError, register_schema
from eval.depth.lens import layers_needed, predictions, settled_share
from eval.depth.lens_config import LensConfig
from eval.engine.decoding import Engine
from eval.engine.language_model import load
from eval.engine.policy import Autoregressive, EarlyExit
from eval.engine.stopping import StopRule
from eval.lens import lens
from models.inference import InferenceLlama

register_schema("lens", LensConfig)
ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")


def call(*overrides: str) -> None:
    with initialize_config_module("conf", version_base="1.3"):
        raw = compose("lens", list(overrides))
    lens(raw)


@pytest.mark.parametrize("first", [0, 37])
def test_predictions_are_those_of_every_exit(first: int) -> None:
    """Against the training model, whose exits are another implementation; more positions than go at once."""
    size = tiny_model(max_seq_len=128)
    ours = our_model(size)
    tokens = torch.randint(size.vocab_size, (1, 110))
    model = InferenceLlama(size, ours.state_dict(), dtype=torch.float32, device=CPU)
    found = predictions(model, tokens[0].tolist(), first, 3)
    with torch.no_grad():
        exits = torch.stack([x[0, first:] for x in ours(tokens, exits=range(size.n_layers)).chunk(size.n_layers)])
    p = exits.softmax(-1)
    assert found.ids.shape == (4, 110 - first, 3)
    torch.testing.assert_close(found.probabilities, p.topk(3).values, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(p.gather(-1, found.ids), found.probabilities, rtol=1e-4, atol=1e-6)
    chosen = found.ids[-1, :, 0].expand(4, -1)
    torch.testing.assert_close(
        found.last_layers_choice, p.gather(-1, chosen.unsqueeze(-1)).squeeze(-1), rtol=1e-4, atol=1e-6
    )
    assert torch.equal(found.last_layers_choice[-1], found.probabilities[-1, :, 0])


def test_predictions_are_what_early_exit_decodes() -> None:
    size = tiny_model()
    model = InferenceLlama(size, our_model(size).state_dict(), dtype=torch.float64, device=CPU)
    prompt = [5, 6, 7]
    for exit_layer in range(1, 5):
        [round_] = Engine(model).generate(prompt, EarlyExit(exit_layer), StopRule(max_new_tokens=1))
        assert round_.tokens == [int(predictions(model, prompt, 0, 1).ids[exit_layer - 1, -1, 0])]


def test_where_predictions_settle() -> None:
    best = torch.tensor(
        [
            [1, 7, 3, 4, 9],  # the first layer
            [1, 2, 9, 9, 9],
            [1, 2, 3, 9, 9],
            [1, 2, 3, 4, 5],  # the last one decides
        ]
    )
    needed = layers_needed(best)
    assert needed.tolist() == [1, 2, 3, 4, 4], "a right guess that is given up in between has not settled"
    assert settled_share(needed, 4) == pytest.approx([0.2, 0.4, 0.6, 1.0])
    assert layers_needed(torch.tensor([[3, 3]])).tolist() == [1, 1]


def test_logits_that_are_no_numbers_are_told() -> None:
    size = tiny_model()
    weights = our_model(size).state_dict()
    weights["layers.2.feed_forward.w2.weight"][:] = math.inf
    model = InferenceLlama(size, weights, dtype=torch.float32, device=CPU)
    with pytest.raises(FloatingPointError, match="exit after 3 layers"):
        predictions(model, [1, 2], 0, 1)


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.S)
    assert found
    return json.loads(found[1])


def test_page_and_json_have_the_numbers(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, numbers = tmp_path / "new" / "a.html", tmp_path / "new" / "a.json"
    options = [
        f"checkpoint={trained}",
        "prompt=import os",
        f"output={page}",
        "machine.dtype=float64",
    ]
    call(*options, "max_new_tokens=6", "top_k=3")
    rows = json.loads(numbers.read_text())
    shown = data_of(page)
    assert {key: shown[key] for key in rows} == rows
    loaded = load(trained, torch.float64)
    model, tokenizer = loaded.model, loaded.tokenizer
    prompt = tokenizer.encode_prompt("import os")
    stop = StopRule(max_new_tokens=6, eos_ids=frozenset({tokenizer.eos_id}))
    generated = [t for r in Engine(model).generate(prompt, Autoregressive(), stop) for t in r.tokens]
    assert rows["tokens"] == prompt + generated[:-1]
    assert [ids[0] for ids in rows["top_ids"][-1]][-len(generated) :] == generated, "the last layer on top of each"
    assert (rows["n_layers"], rows["n_generated"], rows["first_position"]) == (4, len(generated), 0)
    best = torch.tensor(rows["top_ids"])[..., 0]
    assert rows["layers_needed"] == layers_needed(best).tolist()
    assert rows["mean_layers_needed"] == pytest.approx(sum(rows["layers_needed"]) / len(rows["tokens"]))
    late = rows["layers_needed"][-len(generated) :]
    assert rows["mean_layers_needed_generated"] == pytest.approx(sum(late) / len(late))
    assert rows["settled_share"][-1] == 1.0
    assert {int(i) for i in rows["text"]} == {*rows["tokens"], *torch.tensor(rows["top_ids"]).flatten().tolist()}
    assert shown["shown"].keys() == rows["text"].keys()
    out = capsys.readouterr().out
    assert f"layers needed on average: {rows['mean_layers_needed']:.2f} of 4 ({len(rows['tokens'])} positions)" in out
    assert f"for what was generated: {rows['mean_layers_needed_generated']:.2f}" in out
    assert "4:100%" in out


def test_of_a_long_text_the_last_positions_are_shown(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cut = tmp_path / "whole.json", tmp_path / "cut.json"
    options = [f"checkpoint={trained}", "prompt=import os sys re"]
    call(*options, f"output={tmp_path}/whole.html")
    capsys.readouterr()
    call(*options, f"output={tmp_path}/cut.html", "max_positions=3")
    assert "the last 3 are shown (max_positions)" in capsys.readouterr().err
    a, b = json.loads(whole.read_text()), json.loads(cut.read_text())
    assert b["first_position"] == len(a["tokens"]) - 3
    assert b["tokens"] == a["tokens"][-3:]
    assert b["layers_needed"] == a["layers_needed"][-3:]
    assert b["top_ids"] == [layer[-3:] for layer in a["top_ids"]]


BAD = {
    ("prompt=",): "prompt: is empty",
    ("prompt=a", "top_k=0"): "top_k=0: must be at least 1",
    ("prompt=a", "top_k=9999"): "top_k=9999: must be at most the vocabulary's 400",
    ("prompt=a", "max_positions=0"): "max_positions=0: must be at least 1",
    ("prompt=a", "max_new_tokens=-1"): "max_new_tokens=-1: must be at least 0",
    ("prompt=a", "output=a.txt"): "output=a.txt: must end in .html",
    ("prompt=a", "+json=a.json"): "json: is now the .json beside output",
    ("prompt=a", "output=/proc/a.html"): "output=/proc/a.html: ",
    ("prompt_file=nowhere",): "prompt_file=nowhere: No such file",
    ("prompt=" + "a b " * 3000,): "must be fewer than the context's",
}


@pytest.mark.parametrize(
    ("arguments", "message"), BAD.items(), ids=lambda x: x[-1][:30] if isinstance(x, tuple) else ""
)
def test_mistakes_are_told(trained: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    output = [] if any(a.startswith("output=") for a in arguments) else [f"output={tmp_path / 'a.html'}"]
    with pytest.raises(ConfigError, match=re.escape(message)):
        call(f"checkpoint={trained}", *output, *arguments)
    assert not (tmp_path / "a.html").exists()


def test_the_command_takes_text_as_it_is(trained: Path, tmp_path: Path) -> None:
    odd = "x = {'a': \"${b}\", 1: [</script>]}"
    command = [sys.executable, "-m", "eval.lens", f"checkpoint={trained}", f"prompt={odd}", f"output={tmp_path}/a.html"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    shown = data_of(tmp_path / "a.html")
    assert "".join(shown["text"][str(i)] for i in shown["tokens"][1:]) == odd
