"""Prompts of one's own: any field, turns, the model's chat template; what is too long is cut or left out."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from test_convert import call
from transformers import AutoTokenizer

from conf.strict import ConfigError, convert, register_schema
from data.config import DataError
from eval.engine.chat import with_chat
from eval.engine.checkpoint import open_checkpoint
from eval.measure.config import BenchmarkConfig
from eval.measure.plan import plan_of

ROOT = Path(__file__).parent.parent
TEMPLATE = (
    "{% for m in messages %}{{ '<s>' + m['role'] + '\n' + m['content'] + '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)
register_schema("benchmark", BenchmarkConfig)


@pytest.fixture(scope="module")
def folder(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder whose tokenizer has a chat template and knows its special tokens in text."""
    out = call(trained, tmp_path_factory.mktemp("chat") / "hf")
    (out / "tokenizer.model").unlink()
    config = out / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"split_special_tokens": False}))
    (out / "chat_template.jinja").write_text(TEMPLATE)
    return out


def benchmark(checkpoint: Path, *overrides: str) -> BenchmarkConfig:
    with initialize_config_module("conf", version_base="1.3"):
        raw = compose("benchmark", [f"checkpoint={checkpoint}", "task=prompts", "task.max_new_tokens=8", *overrides])
    return convert(raw, BenchmarkConfig)


def write(file: Path, *records: object) -> Path:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def test_a_turn_is_read_as_transformers_reads_it(folder: Path) -> None:
    chat = with_chat(open_checkpoint(folder)).tokenizer
    turns = [{"role": "user", "content": "def f():"}]
    theirs = AutoTokenizer.from_pretrained(folder)
    ids = theirs.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert chat.encode_prompt("def f():") == ids
    assert ids.count(chat.bos_id) == 2, "the template's special tokens are tokens, and none is added to them"
    assert chat.decode(ids) == "user\ndef f():\nassistant\n"


def test_the_template_goes_along_into_checkpoints_and_back(folder: Path, tmp_path: Path) -> None:
    dcp = call(folder, tmp_path / "dcp")
    back = call(dcp, tmp_path / "back")
    for path in (dcp, back):
        assert (path / "chat_template.jinja").read_text() == TEMPLATE
        chat = with_chat(open_checkpoint(path)).tokenizer
        assert chat.encode_prompt("x") == with_chat(open_checkpoint(folder)).tokenizer.encode_prompt("x")


def test_commands_ask_in_the_template_or_say_that_there_is_none(folder: Path, trained: Path) -> None:
    words = ["mode=autoregressive", "chat=true", "prompt=import os", "max_new_tokens=4"]
    for path, status in ((folder, 0), (trained, 2)):
        command = [sys.executable, "-m", "eval.generate", f"checkpoint={path}", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
    message = f"error: chat=true: the tokenizer of {trained} has no chat template; leave chat out"
    assert done.stderr.strip() == message


def test_a_benchmark_of_turns_in_the_template(folder: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "q.jsonl", {"question_id": 1, "turns": ["import os", "and then?"]}, {"turns": "import re"})
    plain = plan_of(benchmark(folder, f"task.source={file}", "task.field=turns", f"output={tmp_path}/a.json"))
    chat = plan_of(
        benchmark(folder, f"task.source={file}", "task.field=turns", "chat=true", f"output={tmp_path}/b.json")
    )
    assert [s.prompt for s in plain.samples] == ["import os", "import re"]
    tokenizer = with_chat(open_checkpoint(folder)).tokenizer
    assert [s.tokens for s in chat.samples] == [tokenizer.encode_prompt(s.prompt) for s in plain.samples]
    assert chat.facts.chat
    assert not plain.facts.chat
    assert plain.settings != chat.settings
    with pytest.raises(ConfigError, match="chat=true: task=held_out continues pieces of a text"):
        plan_of(benchmark(trained_copy(folder, tmp_path), "task=held_out", "chat=true"))


def trained_copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"question": "x"}, r"q\.jsonl:1: no field 'prompt'; fields: question; choose the one .* with task\.field="),
        ({"prompt": [1]}, r"q\.jsonl:1: no text in field 'prompt'"),
        ({"prompt": []}, r"q\.jsonl:1: no text in field 'prompt'"),
        ({"prompt": "\udcff"}, r"q\.jsonl:1: half a surrogate pair in field 'prompt'"),
    ],
)
def test_what_is_no_prompt_is_told_by_line_and_key(
    record: dict[str, object], message: str, folder: Path, tmp_path: Path
) -> None:
    file = write(tmp_path / "q.jsonl", record)
    with pytest.raises(DataError, match=message):
        plan_of(benchmark(folder, f"task.source={file}", f"output={tmp_path}/a.json"))


def test_too_long_prompts_are_refused_cut_or_left_out_and_counted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = open_checkpoint(folder).stored.size.max_seq_len
    long = " ".join(f"word{i}" for i in range(context))
    file = write(tmp_path / "q.jsonl", {"prompt": "import os"}, {"prompt": long})
    options = [f"task.source={file}", f"output={tmp_path}/a.json"]
    with pytest.raises(ConfigError, match=r"1 of 2 prompts .*task\.truncate=true.*task\.skip_too_long=true leaves"):
        plan_of(benchmark(folder, *options))
    left_out = plan_of(benchmark(folder, *options, "task.skip_too_long=true"))
    assert [s.prompt for s in left_out.samples] == ["import os"]
    assert left_out.facts.selection.n_too_long == 1
    assert "1 prompts that do not fit into the context were left out" in capsys.readouterr().out
    for chat in ("false", "true"):
        cut = plan_of(benchmark(folder, *options, "task.truncate=true", f"chat={chat}"))
        assert cut.facts.selection.n_truncated == 1
        assert long.endswith(cut.samples[1].prompt), "what the model continues is kept"
        assert context - 8 - 2 <= len(cut.samples[1].tokens) <= context - 8
