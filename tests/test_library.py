"""The engine as a library: README's example as it stands, and logits of an exit for texts of different lengths."""

import re
from pathlib import Path

import pytest
import torch

import eval.engine
from eval.engine import Autoregressive, Engine, LanguageModel, SamplingOptions, SelfSpeculative, StopRule, load
from eval.prompts.text import continuation

README = (Path(__file__).parent.parent / "README.md").read_text()
[EXAMPLE] = re.findall(r"```python\n(.*?)```", README, re.S)
PROMPTS = ["import os\n\ndef ", "class ", "漢字 = '", "x"]


@pytest.fixture(scope="module")
def loaded(trained: Path) -> LanguageModel:
    return load(trained, torch.float64, batch_size=3)


def alone(loaded: LanguageModel, prompt: str, n: int, sampling: SamplingOptions | None = None) -> str:
    model, tokenizer = loaded.model, loaded.tokenizer
    ids = tokenizer.encode_prompt(prompt)
    stop = StopRule(max_new_tokens=n, eos_ids=frozenset({tokenizer.eos_id}))
    rounds = Engine(model).generate(ids, Autoregressive(), stop, sampling)
    return continuation(tokenizer, ids, [t for r in rounds for t in r.tokens])


@pytest.mark.parametrize("first", ["import os\\n\\ndef ", "print('漢字かな')  # \U0001f600\U0001f1e9\\n漢"])
def test_the_example_of_the_readme_runs_and_prints_whole_characters(
    first: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = EXAMPLE.replace("outputs/demo", str(trained)).replace("import os\\n\\ndef ", first, 1)
    example = example.replace("exit_layer=4", "exit_layer=2")  # this model has 4 layers
    names: dict[str, object] = {}
    exec(example, names)
    printed = [line.split(" ", 1) for line in capsys.readouterr().out.splitlines()]
    pieces = [(int(number), eval_text(piece)) for number, piece in printed]
    texts = ["".join(piece for number, piece in pieces if number == i) for i in (0, 1)]
    assert texts == names["texts"]
    assert texts == [alone(load(trained), prompt, 64) for prompt in names["prompts"]]  # type: ignore[attr-defined]
    model = load(trained)
    assert [tuple(x.shape) for x in names["logits"]] == [  # type: ignore[attr-defined]
        (len(model.tokenizer.encode_prompt(t)), model.model.size.vocab_size) for t in ("import os", "def f(x):")
    ]


def eval_text(literal: str) -> str:
    return str(eval(literal))


@pytest.mark.parametrize("policy", [None, Autoregressive(), SelfSpeculative(1, 4)])
@pytest.mark.parametrize("sampling", [None, SamplingOptions(temperature=0.9, seed=4)])
def test_each_text_is_that_of_its_prompt_alone(
    loaded: LanguageModel, policy: SelfSpeculative | None, sampling: SamplingOptions | None
) -> None:
    if sampling and policy != Autoregressive():
        pytest.skip("other draws, of the same distribution")
    texts = loaded.generate(PROMPTS, max_new_tokens=20, policy=policy, sampling=sampling)
    assert texts == [alone(loaded, prompt, 20, sampling) for prompt in PROMPTS]


def test_texts_that_are_written_at_the_same_time_do_not_disturb_each_other(loaded: LanguageModel) -> None:
    streams = [loaded.stream([prompt], max_new_tokens=12) for prompt in PROMPTS[:2]]
    texts = ["", ""]
    for pair in zip(*streams, strict=False):
        texts = [text + piece for text, (_, piece) in zip(texts, pair, strict=True)]
    for i, rest in enumerate(streams):
        texts[i] += "".join(piece for _, piece in rest)
    assert texts[1] == alone(loaded, PROMPTS[1], 12)


def test_a_stop_string_ends_a_text_and_one_text_is_no_list(loaded: LanguageModel) -> None:
    [whole] = loaded.generate(["import os"], max_new_tokens=30)
    [cut] = loaded.generate(["import os"], max_new_tokens=30, stop=[whole[5:8]])
    assert whole[5:8] in cut
    assert whole.startswith(cut)
    assert len(cut) < len(whole)
    assert loaded.generate([]) == []
    with pytest.raises(ValueError, match="prompts: is a text; give a list of texts"):
        loaded.generate("import os")


def test_logits_of_every_exit_are_those_of_the_text_alone(trained: Path) -> None:
    loaded = load(trained, dtype=torch.float64)
    model, tokenizer = loaded.model, loaded.tokenizer
    texts = ["import os", "x", "def f(a, b):\n    return a + b\n"]
    for exit_layer in range(1, model.size.n_layers + 1):
        for text, logits in zip(texts, loaded.exit_logits(texts, exit_layer), strict=True):
            ids = torch.tensor([tokenizer.encode_prompt(text)])
            n = ids.shape[1]
            with torch.inference_mode():
                x = model.run(model.embed(ids), model.new_cache(n), torch.arange(n), n, range(exit_layer))
                torch.testing.assert_close(logits, model.logits(x[0]), rtol=1e-12, atol=1e-12)
    last = loaded.exit_logits(texts)
    assert all(torch.equal(a, b) for a, b in zip(last, loaded.exit_logits(texts, 4), strict=True))
    assert loaded.exit_logits([]) == []


def test_what_cannot_be_computed_is_told(trained: Path) -> None:
    loaded = load(trained)
    with pytest.raises(ValueError, match=r"exit_layer=5: must lie in 1\.\.4"):
        loaded.exit_logits(["x"], 5)
    with pytest.raises(ValueError, match=r"texts\[1\]: has \d+ tokens, must have 1 to"):
        loaded.exit_logits(["x", "x y " * loaded.model.size.max_seq_len])


def test_the_names_that_are_offered_are_there() -> None:
    assert all(hasattr(eval.engine, name) for name in eval.engine.__all__)
