"""The engine as a library: README's example as it stands, and logits of an exit for texts of different lengths."""

import re
from pathlib import Path

import pytest
import torch

import eval.engine
from eval.engine import exit_logits, load
from eval.prompts.text import continuation

README = (Path(__file__).parent.parent / "README.md").read_text()
[EXAMPLE] = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.mark.parametrize("text", ["import os\\n\\ndef ", "print('漢字かな')  # \U0001f600\U0001f1e9\\n漢"])
def test_the_example_of_the_readme_runs_and_prints_whole_characters(
    text: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = EXAMPLE.replace("outputs/demo", str(trained)).replace("import os\\n\\ndef ", text, 1)
    example = example.replace("exit_layer=4", "exit_layer=2")  # this model has 4 layers
    names: dict[str, object] = {}
    exec(example, names)
    printed = capsys.readouterr().out
    model, tokenizer = load(trained)
    prompt = tokenizer.encode_prompt(eval_text(text))
    rounds = eval.engine.Engine(model).generate(prompt, eval.engine.Autoregressive(), names["stop"])  # type: ignore[arg-type]
    expected = continuation(tokenizer, prompt, [t for r in rounds for t in r.tokens])
    assert printed == expected + "\n"
    logits = names["logits"]
    assert [tuple(x.shape) for x in logits] == [  # type: ignore[attr-defined]
        (len(tokenizer.encode_prompt(t)), model.size.vocab_size) for t in ("import os", "def f(x):")
    ]


def eval_text(literal: str) -> str:
    return literal.replace("\\n", "\n")


def test_logits_of_every_exit_are_those_of_the_text_alone(trained: Path) -> None:
    model, tokenizer = load(trained, dtype=torch.float64)
    texts = ["import os", "x", "def f(a, b):\n    return a + b\n"]
    for exit_layer in range(1, model.size.n_layers + 1):
        for text, logits in zip(texts, exit_logits(model, tokenizer, texts, exit_layer), strict=True):
            ids = torch.tensor([tokenizer.encode_prompt(text)])
            n = ids.shape[1]
            with torch.inference_mode():
                x = model.run(model.embed(ids), model.new_cache(n), torch.arange(n), n, range(exit_layer))
                torch.testing.assert_close(logits, model.logits(x[0]), rtol=1e-12, atol=1e-12)
    last = exit_logits(model, tokenizer, texts)
    assert all(torch.equal(a, b) for a, b in zip(last, exit_logits(model, tokenizer, texts, 4), strict=True))
    assert exit_logits(model, tokenizer, []) == []


def test_what_cannot_be_computed_is_told(trained: Path) -> None:
    model, tokenizer = load(trained)
    with pytest.raises(ValueError, match=r"exit_layer=5: must lie in 1\.\.4"):
        exit_logits(model, tokenizer, ["x"], 5)
    with pytest.raises(ValueError, match=r"texts\[1\]: has \d+ tokens, must have 1 to"):
        exit_logits(model, tokenizer, ["x", "x y " * model.size.max_seq_len])


def test_the_names_that_are_offered_are_there() -> None:
    assert all(hasattr(eval.engine, name) for name in eval.engine.__all__)
