"""Tasks of lm-evaluation-harness: the numbers of its own Hugging Face backend, direct computations, every exit."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_model
from harness_tasks import CONTEXT, TASKS, their_likelihood, write_checkpoint, write_tasks
from hydra import compose, initialize_config_module
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM

from conf.strict import ConfigError, register_schema
from data.config import DataError
from eval.exits import exits
from eval.harness import harness
from eval.lm import model as lm_model
from eval.lm.config import ExitsConfig, HarnessConfig
from eval.lm.model import LayerSkipLM
from models.inference import InferenceLlama

register_schema("harness", HarnessConfig)
register_schema("exits", ExitsConfig)
KINDS = ["sentencepiece", "bytes"]
ALL = f"tasks=[{','.join(TASKS)}]"


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="session", params=KINDS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), request.param)


@pytest.fixture(scope="session")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), "bytes")


@pytest.fixture(autouse=True)
def only_local_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of lm-eval's own 14,000 tasks none is read here, which takes seconds each time."""
    build = TaskManager.__init__
    monkeypatch.setattr(TaskManager, "__init__", lambda self, **given: build(self, include_defaults=False, **given))


def call(command: Any, name: str, *overrides: str) -> Any:
    with initialize_config_module("conf", version_base="1.3"):
        return command(compose(name, list(overrides)))


def run(checkpoint: Path, tasks: Path, out: Path, *overrides: str) -> dict[str, Any]:
    given = [f"checkpoint={checkpoint}", f"include_path={tasks}", f"output={out}/out.json", *overrides]
    result: dict[str, Any] = call(harness, "harness", *given)
    return result


def samples(out: Path, task: str) -> list[Any]:
    return [json.loads(line)["resps"] for line in (out / f"out_samples_{task}.jsonl").read_text().splitlines()]


def test_the_numbers_of_the_hugging_face_backend(checkpoint: Path, tasks: Path, tmp_path: Path) -> None:
    theirs = simple_evaluate(
        model=HFLM(pretrained=str(checkpoint), dtype="float32", device="cpu", batch_size=1),
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=tasks),
        bootstrap_iters=0,
    )
    ours = run(checkpoint, tasks, tmp_path, ALL, "log_samples=true", "machine.dtype=float32", "bootstrap_iters=0")
    for task in TASKS:
        expected = [sample["resps"] for sample in theirs["samples"][task]]
        for mine, their in zip(samples(tmp_path, task), expected, strict=True):
            for (a,), (b,) in zip(mine, their, strict=True):
                if task == "local_text":
                    assert a == b
                else:
                    assert a == pytest.approx(b, rel=1e-5, abs=1e-4)
        for key, value in theirs["results"][task].items():
            assert ours["results"][task][key] == (pytest.approx(value, rel=1e-5) if isinstance(value, float) else value)
        assert ours["n-shot"][task] == theirs["n-shot"][task]
    stored = json.loads((tmp_path / "out.json").read_text())
    assert stored["results"].keys() == TASKS.keys()
    assert stored["config"]["exit_layer"] == tiny_model().n_layers
    assert not list(tmp_path.glob("*.answers*"))


QUESTIONS = [
    ("import os\n\ndef f(x):", " return x + 1"),
    ("import os\n\ndef f(x):", " return None"),
    ("The answer is ", "A"),
    ("The answer is ", "B"),
    ("The answer is ", "self"),
    ("", "import argparse"),
    ("x = 1\n" * 60, "y = 2"),  # longer than the context
]


def requests(pairs: list[tuple[str, str]]) -> list[Instance]:
    return [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_likelihoods_at_every_exit_against_hidden_states(checkpoint: Path, batch_size: int) -> None:
    lm = LayerSkipLM(str(checkpoint), batch_size=batch_size, dtype="float32")
    theirs = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    by_exit = []
    for exit_layer in (1, 2, 3, 4):
        lm.leave_at(exit_layer, (1, 2, 3, 4))
        found = [answer for answer, _ in lm.loglikelihood(requests(QUESTIONS), disable_tqdm=True)]
        for (context, continuation), answer in zip(QUESTIONS, found, strict=True):
            if context:
                before, after = lm._encode_pair(context, continuation)
            else:
                before, after = [lm.prefix_token_id], lm.tok_encode(continuation, add_special_tokens=False)
            before = before[-(CONTEXT + 1 - len(after)) :]
            assert answer == pytest.approx(their_likelihood(theirs, before, after, exit_layer), abs=1e-4)
        by_exit.append(found)
    # The negative control: an implementation that leaves the exit out of account gives the same four times.
    assert all(abs(a - b) > 1e-2 for low, high in pairwise(by_exit) for a, b in zip(low, high, strict=True))


def test_greedy_continuations_are_told_from_others(one: Path) -> None:
    lm = LayerSkipLM(str(one), dtype="float64")
    context = "import os\n"
    (text,) = lm.generate_until([Instance("generate_until", {}, (context, {"max_gen_toks": 6}), 0)], disable_tqdm=True)
    ids = lm.tok_encode(context)
    after = lm.tok_encode(context + text)[len(ids) :]
    greedy = ((context, text), ids, after)
    other = ((context, text), ids, [*after[:-1], (after[-1] + 1) % 400])
    assert [g for _, g in lm._loglikelihood_tokens([greedy, other], disable_tqdm=True)] == [len(after) == 6, False]


def test_the_mode_decides_which_exit_scores(one: Path, tasks: Path, tmp_path: Path) -> None:
    def scores(*mode: str) -> list[Any]:
        run(one, tasks, tmp_path, "tasks=[local_endings]", "log_samples=true", *mode)
        return samples(tmp_path, "local_endings")

    full = scores("mode=autoregressive")
    assert scores("mode=early_exit", "exit_layer=2") != full
    assert scores("mode=early_exit", "exit_layer=4") == full
    assert scores("mode=self_speculative", "exit_layer=2", "num_speculations=3") == full


def test_self_speculation_writes_the_texts_of_all_layers(checkpoint: Path, tasks: Path, tmp_path: Path) -> None:
    def texts(*mode: str) -> list[Any]:
        run(checkpoint, tasks, tmp_path, "tasks=[local_text]", "log_samples=true", "machine.dtype=float64", *mode)
        return samples(tmp_path, "local_text")

    full = texts("mode=autoregressive")
    assert len({str(text) for text in full}) > 1
    for exit_layer in (1, 3):
        assert texts("mode=self_speculative", f"exit_layer={exit_layer}", "num_speculations=3") == full
    assert texts("mode=early_exit", "exit_layer=1") != full


def test_draws_that_are_asked_for_again_differ(one: Path) -> None:
    lm = LayerSkipLM(str(one))
    options = {"max_gen_toks": 12, "do_sample": True, "temperature": 1.0, "until": []}
    asked = [Instance("generate_until", {}, ("import os", options), i) for i in range(4)]
    texts = lm.generate_until(asked, disable_tqdm=True)
    assert len(set(texts)) > 1
    assert LayerSkipLM(str(one)).generate_until(asked, disable_tqdm=True) == texts
    with pytest.raises(ConfigError, match="num_beams=4 is not supported"):
        lm.generate_until([Instance("generate_until", {}, ("import", {"num_beams": 4}), 0)], disable_tqdm=True)
    with pytest.raises(ConfigError, match="asks for 256 new tokens, but the context has 64"):
        lm.generate_until([Instance("generate_until", {}, ("import", {}), 0)], disable_tqdm=True)


def test_chat_templates(checkpoint: Path) -> None:
    chat = [{"role": "user", "content": "What is 1 + 1?"}]
    lm = LayerSkipLM(str(checkpoint))
    with pytest.raises(ConfigError, match="has no chat template"):
        lm.apply_chat_template(chat)
    template = (
        "{% for m in messages %}<{{m.role}}>{{m.content}}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
    )
    lm.tokenizer.chat_template = template
    assert lm.apply_chat_template(chat) == "<user>What is 1 + 1?<a>"
    assert lm.chat_template(True) == template


def test_every_exit_in_one_pass(one: Path, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_passes, embed = [0], InferenceLlama.embed

    def counted(self: InferenceLlama, tokens: torch.Tensor) -> torch.Tensor:
        n_passes[0] += 1
        return embed(self, tokens)

    monkeypatch.setattr(InferenceLlama, "embed", counted)
    given = [f"checkpoint={one}", f"include_path={tasks}", "tasks=[local_endings,local_letters,local_rolling]"]
    rows = call(exits, "exits", *given, f"output={tmp_path}/all.json")
    for_all, n_passes[0] = n_passes[0], 0
    last = call(exits, "exits", *given, f"output={tmp_path}/last.json", "exit_layers=[4]")
    assert n_passes[0] == for_all > 0
    assert [row for row in rows if row.exit_layer == 4] == last
    for name in ("all.json", "all.csv", "all.png"):
        assert (tmp_path / name).stat().st_size
    written = json.loads((tmp_path / "all.json").read_text())
    assert written[0]["checkpoint"] == str(one)
    assert [(row["n_samples"], row["limit"]) for row in written] == [(row.n_samples, None) for row in rows]
    assert all(row.n_samples for row in rows)
    for exit_layer in (1, 2):
        alone = run(one, tasks, tmp_path, "tasks=[local_rolling]", "mode=early_exit", f"exit_layer={exit_layer}")
        found = {row.metric: row.value for row in rows if row.exit_layer == exit_layer}
        for metric in ("word_perplexity", "bits_per_byte"):
            assert found[metric] == pytest.approx(alone["results"]["local_rolling"][f"{metric},none"], rel=1e-6)
    perplexities = {row.value for row in rows if row.metric == "word_perplexity"}
    assert len(perplexities) == 4


def test_texts_of_every_exit(one: Path, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [
        f"checkpoint={one}",
        f"include_path={tasks}",
        "tasks=[local_text]",
        "n_samples=3",
        f"output={tmp_path}/x.json",
    ]
    rows = call(exits, "exits", *given, "exit_layers=[1,4]")
    assert [(row.exit_layer, row.n_samples) for row in rows] == [(1, 3), (4, 3)]
    assert "local_text" in capsys.readouterr().out


def test_a_killed_command_goes_on(one: Path, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(one, tasks, tmp_path, "tasks=[local_text,local_endings]")
    n_texts, written = [0], lm_model.postprocess_generated_text

    def killed(*args: Any) -> str:
        """Stands for what each text passes through that has been written."""
        n_texts[0] += 1
        if n_texts[0] == 5:
            raise KeyboardInterrupt
        return written(*args)

    monkeypatch.setattr(lm_model, "postprocess_generated_text", killed)
    with pytest.raises(KeyboardInterrupt):
        run(one, tasks, tmp_path, "tasks=[local_text,local_endings]")
    (left,) = tmp_path.glob("out.answers-*.jsonl")
    with left.open("a") as file:
        file.write('["half a li')
    again = run(one, tasks, tmp_path, "tasks=[local_text,local_endings]")
    assert n_texts[0] == 5 + 12 - 4
    assert again["results"] == whole["results"]
    # Answers of another exit are none of this one's.
    n_texts[0] = 0
    with pytest.raises(KeyboardInterrupt):
        run(one, tasks, tmp_path, "tasks=[local_text]")
    n_texts[0] = 5
    run(one, tasks, tmp_path, "tasks=[local_text]", "mode=early_exit", "exit_layer=1")
    assert n_texts[0] == 5 + 12
    # Nor are they lost by it: 4 of 12 need not be generated again.
    assert left.exists()
    run(one, tasks, tmp_path, "tasks=[local_text]")
    assert n_texts[0] == 5 + 12 + 12 - 4
    assert not left.exists()


def test_what_cannot_be_run_is_told_in_one_line(one: Path, tasks: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "gone.yaml").write_text((tasks / "local_text.yaml").read_text().replace("data.jsonl", "none.jsonl"))
    for overrides, error, message in (
        (["tasks=[local_ending]"], ConfigError, r"no task of this name \(did you mean local_endings, "),
        (["tasks=[nothing.yaml]"], ConfigError, r"nothing\.yaml: no such file"),
        (["tasks=[local_text]", f"include_path={tmp_path}/none"], ConfigError, "include_path=.*none: no such folder"),
        (["tasks=[local_text]", f"include_path={bad}"], DataError, "tasks=local_text: cannot be loaded .*none.jsonl"),
        (["tasks=[]"], ConfigError, "tasks: empty"),
        (["tasks=[local_text]", "mode=early_exit", "exit_layer=5"], ConfigError, r"must lie in 1\.\.4"),
        (["tasks=[local_text]", "exit_layer=2"], ConfigError, "has no effect with mode=autoregressive"),
        (["tasks=[local_text]", "n_samples=1.5"], ConfigError, "n_samples=1.5: must be"),
        (["tasks=[local_text]", "max_length=65"], ConfigError, r"max_length=65: must lie in 1\.\.64"),
        (["tasks=[local_text]", "output=a.csv"], ConfigError, r"must end in \.json"),
    ):
        with pytest.raises(error, match=message) as raised:
            run(one, tasks, tmp_path, *overrides)
        assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match=r"exit_layers=7: must lie in 1\.\.4"):
        call(exits, "exits", f"checkpoint={one}", f"include_path={tasks}", "tasks=[local_text]", "exit_layers=[7]")


def test_groups_have_a_row_of_their_own_or_their_tasks(one: Path, tasks: Path, tmp_path: Path) -> None:
    files = tmp_path / "files"
    write_tasks_of_groups(files, tasks)
    given = [f"checkpoint={one}", f"include_path={files}", "exit_layers=[1,4]", f"output={tmp_path}/x.json"]
    with_mean = call(exits, "exits", *given, "tasks=[with_mean]")
    assert {(row.task, row.metric) for row in with_mean} == {("with_mean", "acc")}
    parts = call(exits, "exits", *given, "tasks=[only_parts]")
    assert {row.task for row in parts} == {"local_endings", "local_letters"}
    for row in with_mean:
        same = [r.value for r in parts if (r.metric, r.exit_layer) == ("acc", row.exit_layer)]
        assert row.value == pytest.approx(sum(same) / 2)


def write_tasks_of_groups(folder: Path, tasks: Path) -> None:
    folder.mkdir()
    for name in ("local_endings", "local_letters"):
        (folder / f"{name}.yaml").write_text((tasks / f"{name}.yaml").read_text())
    parts = "task: [local_endings, local_letters]\n"
    (folder / "parts.yaml").write_text(f"group: only_parts\n{parts}")
    mean = "aggregate_metric_list: [{metric: acc, weight_by_size: true}]\n"
    (folder / "mean.yaml").write_text(f"group: with_mean\n{parts}{mean}")
