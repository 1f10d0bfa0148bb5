"""Texts side by side: where they part, near-ties, layers per token, prompts from files; and rejected drafts."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_model
from hydra import compose, initialize_config_module
from test_decoding import NEXT, SOMETIMES, Stub, tiny
from test_lens import data_of
from test_parity_hf import our_model

from conf.strict import ConfigError, register_schema
from data.config import DataError
from eval.compare import compare
from eval.config import GenerateConfig
from eval.engine.decoding import Engine
from eval.engine.language_model import load
from eval.engine.policy import Autoregressive, EarlyExit, Policy, SelfSpeculative
from eval.engine.rows import Request, Round
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import StopRule
from eval.exactness.compare_config import CompareConfig
from eval.exactness.compared import mode_rows, mode_table, unexplained_sides
from eval.exactness.side_by_side import Side, layers_per_token, side_by_side
from eval.generate import generate
from eval.measure.timing import Timed
from eval.prompts.prompt_text import prompt_texts
from eval.setting import Setting
from models.inference import InferenceLlama

register_schema("compare", CompareConfig)
register_schema("generate", GenerateConfig)
CPU = torch.device("cpu")


def call(name: str, *overrides: str) -> None:
    with initialize_config_module("conf", version_base="1.3"):
        raw = compose(name, list(overrides))
    {"compare": compare, "generate": generate}[name](raw)


def test_rounds_say_which_drafts_were_rejected() -> None:
    # The draft is wrong after 0, 3, 6, 9: from 1 it drafts 2, 3 and 5 where 4 comes; from 4: 5, 6 and 8.
    engine: Any = Engine(Stub(NEXT, SOMETIMES), None)  # type: ignore[arg-type]
    rounds = list(engine.generate([0], SelfSpeculative(2, 4), StopRule(max_new_tokens=9)))
    assert rounds[1] == Round([2, 3, 4], 4, 2, (5, 6), 2)
    assert rounds[0].rejected == ()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_accepted_and_rejected_are_all_drafts(temperature: float) -> None:
    seen = 0
    for round_ in Engine(tiny()).generate(
        [1, 2], SelfSpeculative(2, 4), StopRule(max_new_tokens=60), SamplingOptions(temperature=temperature)
    ):
        if len(round_.tokens) > round_.n_accepted:  # not cut by the end of the text
            assert round_.n_accepted + len(round_.rejected) == round_.n_drafted
        if temperature == 0.0 and round_.rejected and len(round_.tokens) > round_.n_accepted:
            assert round_.rejected[0] != round_.tokens[round_.n_accepted]
        seen += len(round_.rejected)
    assert seen


def test_layers_per_token() -> None:
    rounds = [Round([1], 0, 0), Round([2, 3, 4], 3, 2, exit_layer=2), Round([5], 3, 0, exit_layer=2), Round([6], 0, 0)]
    assert layers_per_token(rounds, Autoregressive(), 8) == 8
    assert layers_per_token(rounds, EarlyExit(3), 8) == 3
    # The prompt 8; 4 times the first 2 layers and once the other 6, twice; and a plain token: 8 + 14 + 14 + 8 for 6.
    assert layers_per_token(rounds, SelfSpeculative(2, 3), 8) == pytest.approx(44 / 6)


def test_layers_per_token_are_those_the_engine_runs() -> None:
    passes = 0

    class Counting(Stub):
        def run(self, *args: Any) -> torch.Tensor:
            nonlocal passes
            passes += len(args[-1])
            return super().run(*args)

    engine: Any = Engine(Counting(NEXT, SOMETIMES), None)  # type: ignore[arg-type]
    for policy in (Autoregressive(), EarlyExit(3), SelfSpeculative(2, 3), SelfSpeculative(1, 1)):
        passes = 0
        rounds = list(engine.generate([0], policy, StopRule(max_new_tokens=11)))
        assert layers_per_token(rounds, policy, 4) == pytest.approx(passes / 11)


def test_sides_of_a_model() -> None:
    model = tiny()
    policies: list[Policy] = [SelfSpeculative(2, 3), EarlyExit(1), EarlyExit(5)]
    autoregressive, spec, early, all_layers = side_by_side(
        Engine(model), [1, 2, 3], policies, StopRule(max_new_tokens=30)
    )
    assert [s.policy for s in (autoregressive, spec, early, all_layers)] == [Autoregressive(), *policies]
    assert autoregressive.differs_at is spec.differs_at is all_layers.differs_at is None
    assert spec.run.tokens == autoregressive.run.tokens
    at = early.differs_at
    assert at is not None
    assert early.run.tokens[:at] == autoregressive.run.tokens[:at]
    assert early.run.tokens[at] != autoregressive.run.tokens[at]
    assert not early.near_tie


def test_a_near_tie_is_told_from_a_difference() -> None:
    """Two tokens with the same head row: the full model cannot tell them apart."""
    size = tiny_model(vocab_size=24, n_layers=5)
    weights = our_model(size).state_dict()
    model = InferenceLlama(size, weights, dtype=torch.float64, device=CPU)
    [first] = list(Engine(model).generate([1, 2], Autoregressive(), StopRule(max_new_tokens=1)))
    best = first.tokens[0]
    other = (best + 1) % 24
    weights["lm_head.weight"][other] = weights["lm_head.weight"][best]
    model = InferenceLlama(size, weights, dtype=torch.float64, device=CPU)

    class Flipped(Engine):
        """Self-speculation that takes the other of two equals, or something else altogether."""

        instead = other

        def generate_all(self, requests: Iterable[Request], policy: Policy) -> Iterator[list[tuple[int, Round]]]:
            found = super().generate_all(requests, policy)
            if not isinstance(policy, SelfSpeculative):
                return found
            return iter([[(0, Round([self.instead], 0, 0))]])

    stop = StopRule(max_new_tokens=1)
    autoregressive, spec = side_by_side(Flipped(model), [1, 2], [SelfSpeculative(2, 3)], stop)
    assert spec.run.tokens != autoregressive.run.tokens
    assert (spec.differs_at, spec.near_tie) == (0, True)
    assert not unexplained_sides([[autoregressive, spec]])
    Flipped.instead = (best + 5) % 24
    autoregressive, spec = side_by_side(Flipped(model), [1, 2], [SelfSpeculative(2, 3)], stop)
    assert (spec.differs_at, spec.near_tie) == (0, False)
    assert unexplained_sides([[autoregressive, spec]]) == [
        "prompt 1: self-speculation differs from autoregressive decoding at token 1, and not by rounding"
    ]


def side(policy: Policy, tokens: list[int], seconds: float, layers: float, at: int | None, tie: bool = False) -> Side:
    rounds = [Round(tokens, 4, 2, exit_layer=2)] if isinstance(policy, SelfSpeculative) else [Round(tokens, 0, 0)]
    run = Timed(tokens, rounds, seconds, seconds, [])
    return Side(policy=policy, run=run, layers_per_token=layers, differs_at=at, near_tie=tie)


def test_sums_over_prompts() -> None:
    spec, early = SelfSpeculative(2, 3), EarlyExit(2)
    results = [
        [
            side(Autoregressive(), [1, 2], 1.0, 8, None),
            side(spec, [1, 2], 0.5, 6, None),
            side(early, [1, 3], 0.2, 2, 1),
        ],
        [
            side(Autoregressive(), [1] * 6, 1.0, 8, None),
            side(spec, [2] * 6, 0.5, 4, 0, True),
            side(early, [1], 0.2, 2, 1),
        ],
    ]
    full, speculative, exit_2 = mode_rows(results, 8)
    assert full.tokens_per_second == 4
    assert speculative.tokens_per_second == 8
    assert speculative.layers_per_token == pytest.approx((2 * 6 + 6 * 4) / 8)
    assert speculative.acceptance == 0.5
    assert (speculative.same, speculative.near_ties) == (1, 1)
    assert (exit_2.same, exit_2.acceptance) == (0, None)
    line = mode_table([full, speculative, exit_2]).split("\n")[2]
    assert line.split()[2:] == ["d=3", "8.0", "4.5", "50%", "1", "of", "2,", "1", "near-tie"]
    assert Setting.of(EarlyExit(3), 8).label == "early-exit E=3"


def test_prompts_of_a_file(tmp_path: Path) -> None:
    lines, text = tmp_path / "a.jsonl", tmp_path / "a.txt"
    lines.write_text('{"prompt": "a"}\n\n{"prompt": "b\\n", "other": 1}\n')
    text.write_text('{"prompt": "a"}\n')
    assert prompt_texts(None, str(lines), "prompt") == ["a", "b\n"]
    assert prompt_texts(None, str(text), "prompt") == ['{"prompt": "a"}']
    assert prompt_texts("x", str(lines), "prompt") == ["x"]
    for content, message in {
        '{"prompt": "a"}\n{"text": "b"}': r"a\.jsonl:2: no field 'prompt'; fields: text; choose .* with field=",
        '{"prompt": 3}': r"a\.jsonl:1: no text in field 'prompt'; fields: prompt",
        '{"prompt": "\\ud83d"}': r"a\.jsonl:1: half a surrogate pair",
        "[1]": r"a\.jsonl:1: not an object with a field 'prompt'",
        '{"prompt": "a"}\n{': r"a\.jsonl:2: broken JSON",
    }.items():
        lines.write_text(content)
        with pytest.raises(DataError, match=message):
            prompt_texts(None, str(lines), "prompt")
    lines.write_text("\n")
    with pytest.raises(ConfigError, match=r"prompt_file=.*a\.jsonl: has no prompt"):
        prompt_texts(None, str(lines), "prompt")
    with pytest.raises(ConfigError, match="prompt: not UTF-8"):
        prompt_texts("a\udcff", "-", "prompt")  # as Python has a byte of the command line that is no UTF-8
    with pytest.raises(ConfigError, match=r"prompt_file=nowhere\.jsonl: No such file"):
        prompt_texts(None, "nowhere.jsonl", "prompt")


def test_the_command(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts, page = tmp_path / "p.jsonl", tmp_path / "c.html"
    prompts.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in ("import", "def f(", "class A:")))
    options = [f"checkpoint={trained}", f"prompt_file={prompts}", f"output={page}", "machine.dtype=float64"]
    call(
        "compare",
        *options,
        "max_new_tokens=20",
        "exit_layers=[2,1]",
        "num_speculations=3",
        "n_samples=2",
    )
    out, err = capsys.readouterr()
    assert "the first 2 of 3 prompts" in err
    modes = ["autoregressive", "self-speculative E=2 d=3", "early-exit E=2", "early-exit E=1"]
    assert [line[: len(mode)] for line, mode in zip(out.split("\n")[1:], modes, strict=False)] == modes
    assert "2 of 2" in out.split("\n")[2]
    data = data_of(page)
    assert [row["mode"] for row in data["rows"]] == modes
    loaded = load(trained, torch.float64)
    model, tokenizer = loaded.model, loaded.tokenizer
    stop = StopRule(max_new_tokens=20, eos_ids=frozenset({tokenizer.eos_id}))
    for text, shown in zip(("import", "def f("), data["prompts"], strict=True):
        autoregressive = [
            t for r in Engine(model).generate(tokenizer.encode_prompt(text), Autoregressive(), stop) for t in r.tokens
        ]
        early = [t for r in Engine(model).generate(tokenizer.encode_prompt(text), EarlyExit(1), stop) for t in r.tokens]
        reference, spec, _, exit_1 = shown["sides"]
        assert len(reference["shown"]) == len(autoregressive)
        assert spec["shown"] == reference["shown"]
        assert spec["differs_at"] is None
        assert len(spec["drafted"]) == len(autoregressive)
        at = exit_1["differs_at"]
        assert at == next(i for i, (a, b) in enumerate(zip(autoregressive, early, strict=False)) if a != b)


def test_generate_writes_what_it_printed(trained: Path, tmp_path: Path) -> None:
    page = tmp_path / "g.html"
    options = [f"checkpoint={trained}", "prompt=import", "max_new_tokens=30", "machine.dtype=float64"]
    call("generate", *options, "exit_layer=2", "num_speculations=3", f"output={page}")
    data = data_of(page)
    loaded = load(trained, torch.float64)
    model, tokenizer = loaded.model, loaded.tokenizer
    stop = StopRule(max_new_tokens=30, eos_ids=frozenset({tokenizer.eos_id}))
    rounds = list(Engine(model).generate(tokenizer.encode_prompt("import"), SelfSpeculative(2, 3), stop))
    assert data["ids"] == [t for r in rounds for t in r.tokens]
    assert [(r["n_tokens"], r["n_drafted"], r["n_accepted"], tuple(r["rejected_ids"])) for r in data["rounds"]] == [
        (len(r.tokens), r.n_drafted, r.n_accepted, r.rejected) for r in rounds
    ]
    assert (data["n_layers"], data["exit_layer"], data["num_speculations"]) == (4, 2, 3)
    for mode, exit_layer in (("autoregressive", None), ("early_exit", 1)):
        extra = [f"exit_layer={exit_layer}"] if exit_layer else []
        call("generate", *options, f"mode={mode}", f"output={page}", *extra)
        assert (data_of(page)["exit_layer"], data_of(page)["num_speculations"]) == (exit_layer, None)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("compare", ["prompt=a", "exit_layers=[4]"], "exit_layers=4: must lie in 1..3"),
        ("generate", ["prompt=a", "+html=a.html"], "html: is now output"),
        ("compare", ["prompt=a", "+exit_layer=4"], "exit_layer: is now the first of exit_layers"),
        ("compare", ["prompt=a", "+max_prompts=4"], "max_prompts: is now n_samples"),
        ("compare", ["prompt=a", "num_speculations=0"], "num_speculations=0: must be at least 1"),
        ("compare", ["prompt=a", "n_samples=0"], "n_samples=0: must be at least 1"),
        ("compare", ["prompt=a", "output=/proc/a.html"], "output=/proc/a.html: "),
        ("compare", ["prompt=a", "output=a"], "output=a: must end in .html"),
        ("generate", ["prompt=a", "output=/proc/a.html"], "output=/proc/a.html: "),
        ("generate", ["prompt=a", "output=a"], "output=a: must end in .html"),
    ],
)
def test_mistakes_are_told(
    trained: Path, tmp_path: Path, name: str, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(message)):
        call(name, f"checkpoint={trained}", *arguments)
