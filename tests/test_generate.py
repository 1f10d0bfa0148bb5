"""`python -m eval.generate` as a user meets it: text, colours, stop strings, and mistakes told in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module

from conf.strict import register_schema
from data.tokenizers.tokenizer import load_tokenizer
from eval.config import Color, DraftPolicy, GenerateConfig
from eval.engine.checkpoint import open_checkpoint
from eval.engine.policy import ConfidenceStop, DynamicExit, EarlyExit, SelfSpeculative
from eval.engine.rows import Round
from eval.engine.text_stream import TextStream
from eval.generate import generate
from eval.painter import DRAFTED, FULL, Painter, speed_line
from eval.policies import choose_policy

ROOT = Path(__file__).parent.parent
register_schema("generate", GenerateConfig)


def call(*overrides: str) -> None:
    with initialize_config_module("conf", version_base="1.3"):
        raw = compose("generate", list(overrides))
    generate(raw)


def command(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "eval.generate", *arguments], cwd=ROOT, input=text, capture_output=True, text=True
    )


def test_all_modes_print_text_and_self_speculation_prints_the_same(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {}
    for mode in ("autoregressive", "self_speculative", "early_exit"):
        extra = [] if mode == "autoregressive" else ["exit_layer=2"]
        call(
            f"checkpoint={trained}",
            "prompt=import",
            f"mode={mode}",
            "max_new_tokens=24",
            "machine.dtype=float64",
            *extra,
        )
        out, err = capsys.readouterr()
        assert out.startswith("import")
        assert out.endswith("\n")
        assert "\x1b" not in out, "no colours where nobody sees them"
        assert "tokens/s" in err
        texts[mode] = out
    assert texts["autoregressive"] == texts["self_speculative"] != texts["early_exit"]


def test_colours_tell_who_supplied_a_token(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = ["prompt=import", "max_new_tokens=40", f"checkpoint={trained}", "exit_layer=2", "num_speculations=2"]
    call(*plain)
    expected = capsys.readouterr().out
    call(*plain, "color=always")
    out = capsys.readouterr().out
    assert DRAFTED in out
    assert FULL in out
    for code in ("\x1b[32m", "\x1b[1;35m", "\x1b[2m", "\x1b[0m"):
        out = out.replace(code, "")
    assert out == expected


def test_a_stop_string_ends_the_text(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(f"checkpoint={trained}", "prompt=import", "max_new_tokens=60")
    text = capsys.readouterr().out.removeprefix("import").rstrip("\n")
    stop = text[10:12]
    call(f"checkpoint={trained}", "prompt=import", "max_new_tokens=60", f"stop=[{json.dumps(stop)}]")
    cut = capsys.readouterr().out.removeprefix("import").removesuffix("\n")
    assert stop in cut
    assert text.startswith(cut)
    assert len(cut) < len(text)


def test_prompts_from_standard_input_and_from_the_command_line_are_taken_as_they_are(trained: Path) -> None:
    odd = "def f(x: dict[str, int] = {'a': \"${b}\"}, *, y=\\n):"
    by_key = command(f"checkpoint={trained}", f"prompt={odd}", "max_new_tokens=4")
    by_input = command(f"checkpoint={trained}", "max_new_tokens=4", text=odd + "\n")
    assert by_key.returncode == by_input.returncode == 0, by_key.stderr + by_input.stderr
    assert by_key.stdout == by_input.stdout
    assert by_key.stdout.startswith(odd)


BAD = {
    ("prompt=",): "prompt: is empty",
    ("prompt_file=nowhere.txt",): "prompt_file=nowhere.txt: No such file",
    ("prompt=a", "exit_layer=9"): "exit_layer=9: must lie in 1..3",
    ("prompt=a", "exit_layer=0"): "exit_layer=0: must lie in 1..3",
    ("prompt=a", "machine.weights=int8", "machine.dtype=float32"): "machine.weights=int8: computes in bfloat16",
    ("prompt=a", "machine.prefill_chunk=0"): "machine.prefill_chunk=0: must be at least 1",
    ("prompt=a", "num_speculations=0"): "num_speculations=0: must be at least 1",
    ("prompt=a", "mode=early_exit", "exit_layer=5"): "exit_layer=5: must lie in 1..4",
    ("prompt=a", "mode=early_exit", "num_speculations=2"): "num_speculations=2: has no effect",
    ("prompt=a", "mode=autoregressive", "exit_layer=2"): "exit_layer=2: has no effect",
    ("prompt=a", "mode=early_exit", "policy=dynamic"): "policy=dynamic: has no effect",
    ("prompt=a", "policy=dynamic", "exit_layer=2"): "exit_layer=2: has no effect",
    ("prompt=a", "policy=dynamic", "num_speculations=2"): "num_speculations=2: has no effect",
    ("prompt=a", "mode=greedy"): "mode: ",
    ("prompt=" + "a b " * 3000,): "must be fewer than the context's",
    ("prompt=a", "machine.device=tpu"): "machine.device=tpu: cannot be used here",
    ("prompt=a", "sampling.temperature=-1"): "sampling.temperature=-1.0: must be 0 (greedy) or at least 0.0001",
    ("prompt=a", "sampling.top_q=1"): "sampling.top_q: unknown key (did you mean top_p?)",
    ("prompt=a", "data=text"): "data: this command has no group of choices of that name; allowed: checkpoint, prompt",
    ("prompt=a", "max_new_tokens=0"): "max_new_tokens=0: must be at least 1",
    ("prompt=a", "stop=['']"): "stop: an empty string",
    ("prompt=a", "checkpoint=tests"): "tests: neither a run folder with a checkpoint",
}


@pytest.mark.parametrize(
    ("arguments", "message"), BAD.items(), ids=lambda x: " ".join(x)[:40] if isinstance(x, tuple) else ""
)
def test_mistakes_are_told_in_one_line(
    trained: Path, arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import eval.generate as module
    from conf.command import command as run

    monkeypatch.setattr(sys, "argv", ["generate", f"checkpoint={trained}", *arguments])
    with pytest.raises(SystemExit) as status:
        run("generate", GenerateConfig, module.generate, verbatim=["prompt"])
    assert status.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_a_missing_checkpoint_is_asked_for() -> None:
    result = command("prompt=a")
    assert result.returncode == 2
    assert result.stderr == "error: checkpoint: missing; give a value, or choose a group or experiment that does\n"


def test_a_reader_that_has_had_enough_is_no_error(trained: Path) -> None:
    line = f"{sys.executable} -m eval.generate checkpoint={trained} prompt=import | head -c 3"
    result = subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert result.stdout == "imp"
    assert "Traceback" not in result.stderr
    assert "rror" not in result.stderr


def test_what_is_left_open_comes_from_the_benchmark(trained: Path) -> None:
    checkpoint = open_checkpoint(trained)
    config = GenerateConfig(checkpoint=str(trained))
    assert choose_policy(config, checkpoint).policy == SelfSpeculative(1, 3)
    rows: list[dict] = [
        {"mode": "self_speculative", "exit_layer": 2, "num_speculations": 5, "speedup": 1.4},
        {"mode": "self_speculative", "exit_layer": 3, "num_speculations": 6, "speedup": 1.2},
        {"mode": "early_exit", "exit_layer": 1, "num_speculations": 0, "speedup": 3.0},
    ]
    path = trained / "benchmark.json"
    try:
        path.write_text(json.dumps(rows))
        assert choose_policy(config, checkpoint).policy == SelfSpeculative(2, 5)
        config.exit_layer = 3
        assert choose_policy(config, checkpoint).policy == SelfSpeculative(3, 5)
        config.policy = DraftPolicy.confidence
        assert choose_policy(config, checkpoint).policy == ConfidenceStop(3, 5)
        # A policy that was the fastest is taken, unless the user says E or d.
        rows.append({"mode": "self_speculative", "policy": "dynamic", "exit_layer": 0, "speedup": 1.5})
        path.write_text(json.dumps(rows))
        config.policy = config.exit_layer = None
        chosen = choose_policy(config, checkpoint)
        assert chosen == (DynamicExit(), f"policy=dynamic: the fastest in {path}", None)
        config.exit_layer = 3
        assert choose_policy(config, checkpoint).policy == SelfSpeculative(3, 5)
        rows.append({"mode": "self_speculative", "policy": "confidence", "exit_layer": 1, "num_speculations": 9})
        path.write_text(json.dumps([*rows[:-1], rows[-1] | {"speedup": 1.6}]))
        config.exit_layer = None
        assert choose_policy(config, checkpoint).policy == ConfidenceStop(1, 9)
        config.num_speculations = 4
        assert choose_policy(config, checkpoint).policy == SelfSpeculative(1, 4)
    finally:
        path.unlink()


def test_where_no_setting_is_faster_decoding_is_plain(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"mode": "self_speculative", "exit_layer": 2, "num_speculations": 5, "speedup": 0.15}
    path = trained / "benchmark.json"
    given = [f"checkpoint={trained}", "prompt=import", "max_new_tokens=4"]
    try:
        path.write_text(json.dumps([row]))
        call(*given)
        err = capsys.readouterr().err
        assert (
            f"autoregressive decoding: no setting in {path} is faster (the best, exit_layer=2 num_speculations=5, 0.15"
            in err
        )
        assert "all by 4 layers" in err
        for asked, drafted in (
            ("mode=self_speculative", "drafted by 2 layers, 5 at a time"),
            ("exit_layer=3", "drafted by 3 layers, 5 at a time"),
        ):
            call(*given, asked)
            assert drafted in capsys.readouterr().err
        path.write_text(json.dumps([row | {"speedup": 1.2}]))
        call(*given)
        err = capsys.readouterr().err
        assert f"exit_layer=2 num_speculations=5: the fastest in {path}" in err
        assert "drafted by 2 layers, 5 at a time" in err
    finally:
        path.unlink()


def test_characters_of_several_tokens_come_whole(trained: Path) -> None:
    tokenizer = load_tokenizer(trained / "tokenizer.model")
    text = "naïve 漢字 \U0001f600 ok"
    stream, shown = TextStream(tokenizer.decode, [tokenizer.bos_id]), ""
    for token in tokenizer.encode(text):
        piece = stream.push([token])
        assert "\ufffd" not in piece
        shown += piece
    assert shown + stream.rest() == text


def test_bytes_that_are_no_character_do_not_hold_the_text_back_for_ever(trained: Path) -> None:
    tokenizer = load_tokenizer(trained / "tokenizer.model")
    start = tokenizer.encode("漢")[:1]
    stream = TextStream(tokenizer.decode, [])
    shown = "".join(stream.push(start) for _ in range(20)) + stream.rest()
    assert shown.count("\ufffd") == 20


def test_summary_counts_rounds() -> None:
    rounds = [Round([1], 0, 0), Round([2, 3, 4], 3, 2), Round([5], 3, 0)]
    text = speed_line(rounds, SelfSpeculative(2, 3), 4, 2.0, Painter(Color.never))
    assert text.startswith(
        "5 tokens in 2.00 s (2 tokens/s); drafted by 2 layers, 3 at a time (33% of 6 drafts accepted)"
    )
    assert "first 2 of 4 layers" in speed_line(rounds, EarlyExit(2), 4, 2.0, Painter(Color.never))
