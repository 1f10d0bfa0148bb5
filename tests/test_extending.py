"""docs/extending.md as it stands: its file, its commands; what is recorded, and what is wrong told in one line."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import compose_config
from documented import own_parts

from conf.plugins import digest, is_plugin, load, load_class, load_function
from conf.strict import ConfigError
from data.config import DataError
from data.corpus import prepare
from train import run_dir
from train.recipe.curriculum import EarlyExitConfig, active_layers
from train.recipe.dropout_schedule import LayerDropoutConfig, dropout_probability

ROOT = Path(__file__).parent.parent
MANUAL = (ROOT / "docs" / "extending.md").read_text()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the manual's file, as a user has it."""
    folder = tmp_path_factory.mktemp("own")
    own_parts(folder)
    return folder


@pytest.fixture(autouse=True)
def _importable(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(package))


def run(package: Path, module: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(package), str(ROOT)])}
    command = [sys.executable, "-m", module, *words]
    return subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True)


def words_of(module: str, name: str) -> list[str]:
    """The overrides of the manual's command that has this name in it."""
    text = MANUAL.replace("\\\n", " ")
    [line] = [x for x in text.splitlines() if x.startswith(f"python -m {module} ") and name in x]
    return [word.strip("'") for word in line.partition("#")[0].split()[3:]]


def test_names_of_plugins_are_told_from_choices_files_and_hub() -> None:
    assert is_plugin("my_package.mine:name")
    for value in ("rotational", "docs", "hf://org/name", "C:/texts", "a/b.py:name", "mine:", ":name"):
        assert not is_plugin(value), value


def test_the_curriculum_and_the_schedules() -> None:
    config = EarlyExitConfig(curriculum="my_exits.mine:staircase", e_scale=1.0, include_last_layer=False)
    assert [active_layers(config, t, 4, 8) for t in (0, 2, 7)] == [(3,), (2, 3), (0, 1, 2, 3)]
    dropout = LayerDropoutConfig(
        p_max=0.4, depth_schedule="my_exits.mine:late_half", time_schedule="my_exits.mine:warm_up"
    )
    assert [dropout_probability(dropout, layer, 50, 4, 100) for layer in range(4)] == [0.0, 0.0, 0.4, 0.4]
    assert dropout_probability(dropout, 3, 5, 4, 100) == pytest.approx(0.2)


def test_a_model_of_the_users_own(package: Path) -> None:
    done = run(package, "train.describe", *words_of("train.describe", "--config-dir"))
    assert done.returncode == 0, done.stderr
    assert "demo: mine, 12 layers, 13,048,064 parameters" in done.stdout
    wrong = run(package, "train.describe", "--config-dir", "my_conf", "model=min")
    assert wrong.returncode == 2
    assert "Could not find 'model/min'" in wrong.stderr
    assert wrong.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_run_with_all_of_them_is_recorded_and_resumes(package: Path, tiny_run: list[str], tmp_path: Path) -> None:
    own = [w for w in words_of("train.pretrain", "staircase") if "my_exits" in w]
    assert len(own) == 3
    options = [*tiny_run, *own, "early_exit.e_scale=1.0", "layer_dropout.p_max=0.3", "checkpoint.every=2"]
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    done = run(package, "train.pretrain", *options, "train.steps=4", f"run_dir={whole}")
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load((whole / "config.yaml").read_text())
    assert config["early_exit"]["curriculum"] == "my_exits.mine:staircase"
    names = [f"my_exits.mine:{name}" for name in ("late_half", "staircase", "warm_up")]
    assert config["plugins"] == dict.fromkeys(names, digest(names[0]))
    losses = {r["step"]: r["train/objective"] for r in metrics(whole) if "train/objective" in r}
    # The same as if it had been stopped at the checkpoint of step 2.
    shutil.copytree(whole, halted)
    shutil.rmtree(halted / "checkpoint" / "step-4")
    again = run(package, "train.pretrain", *options, "train.steps=4", f"run_dir={halted}")
    assert again.returncode == 0, again.stderr
    assert {r["step"]: r["train/objective"] for r in metrics(halted) if "train/objective" in r} == losses


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["stories", "token_rows"])
def test_sources_of_texts_and_of_tokens(name: str, trained: Path, tmp_path: Path) -> None:
    options = ["data=text", f"data.source=my_exits.mine:{name}", f"data.cache_dir={tmp_path}/cache"]
    options += [f"data.tokenizer.path={trained}"]
    corpus = prepare(compose_config(*options).data, 400)
    assert corpus.facts["train_documents"] + corpus.facts["validation_documents"] == 1000
    rows = corpus.validation.read(0, 40).tolist()
    if name == "token_rows":
        assert rows[0] == 1
        assert all(i in (1, 2) or 300 <= i < 330 for i in rows)
    else:
        assert "Once there were" in corpus.tokenizer.decode(rows)
    assert compose_config(*options).plugins == {f"my_exits.mine:{name}": digest(f"my_exits.mine:{name}")}


def test_a_source_that_has_changed_is_not_continued(package: Path, tiny_run: list[str], tmp_path: Path) -> None:
    options = [o for o in tiny_run if not o.startswith("data.source=")]
    options += ["data.source=my_exits.mine:stories", f"run_dir={tmp_path}/run", "train.steps=2", "model.vocab_size=320"]
    done = run(package, "train.pretrain", *options)
    assert done.returncode == 0, done.stderr
    config = compose_config(*options, "train.steps=4")
    config.plugins["my_exits.mine:stories"] = "another"
    with pytest.raises(ConfigError, match=r"my_exits\.mine:stories: its file has changed .*choose another run_dir"):
        run_dir.check_continues(config, prepare(config.data, 320))


def test_the_task_and_the_metric(package: Path, trained: Path, tmp_path: Path) -> None:
    words = [w for w in words_of("eval.benchmark", "Sums") if not w.startswith("checkpoint=")]
    output = tmp_path / "sums.json"
    options = [f"checkpoint={trained}", f"output={output}", "exit_layers=[2]", "num_speculations=[2]"]
    done = run(package, "eval.benchmark", *words, *options)
    assert done.returncode == 0, done.stderr
    wrong = run(package, "eval.benchmark", *words, *options, "task.options.smallest=1")
    message = "error: task.options.smallest: a new key of a table begins with a plus sign: +task.options.smallest=VALUE"
    assert wrong.stderr.strip() == message
    wrong = run(package, "eval.benchmark", *words, *options, "+task.options.smallest=1")
    assert wrong.stderr.strip() == "error: task.options: got an unexpected keyword argument 'smallest'"
    assert "4 samples of 36" in done.stdout
    rows = json.loads(output.read_text())
    assert all({"right", "n_words", "n_words_low"} <= row.keys() for row in rows)
    assert rows[0]["task_file"] == digest("my_exits.mine:Sums")
    assert rows[0]["metrics"] == {"my_exits.mine:n_words": digest("my_exits.mine:n_words")}


WRONG = {
    "nowhere.mine:x": r"KEY=nowhere\.mine:x: no module nowhere",
    "my_exits.mine:nothing": r"KEY=my_exits\.mine:nothing: .*mine\.py has no nothing",
    "my_exits.mine:late_half": r"KEY=.*: must take \(step, n_layers, total_steps\), but takes \(layer, n_layers\)",
    "my_exits.broken:x": r"KEY=.*: my_exits\.broken cannot be imported \(ZeroDivisionError: division by zero\)",
    "my_exits.number:x": r"KEY=.*: is no function, but int",
}


@pytest.mark.parametrize("value", WRONG)
def test_what_is_wrong_is_told_in_one_line(value: str, package: Path) -> None:
    (package / "my_exits" / "broken.py").write_text("1 / 0\n")
    (package / "my_exits" / "number.py").write_text("x = 3\n")
    key = "early_exit.curriculum"
    with pytest.raises(ConfigError, match=WRONG[value].replace("KEY", re.escape(key))) as error:
        compose_config(f"{key}={value}")
    assert "\n" not in str(error.value)


def test_what_functions_give_is_checked_before_a_run_starts(package: Path) -> None:
    (package / "my_exits" / "bad.py").write_text(
        "def deep(step, n_layers, total_steps):\n    return [n_layers]\n"
        "def big(layer, n_layers):\n    return 2.0\n"
        "def numbers():\n    yield 3\n"
        "def fails():\n    yield 'x'\n    raise OSError('the disk is gone')\n"
        "def nothing():\n    return []\n"
    )
    with pytest.raises(ConfigError, match=r"curriculum=my_exits\.bad:deep: gave layer 6 at step 0; .* 0\.\.5"):
        compose_config("early_exit.curriculum=my_exits.bad:deep", "early_exit.e_scale=1.0")
    with pytest.raises(ConfigError, match=r"depth_schedule=my_exits\.bad:big: gave 2\.0 at layer=0, n_layers=6"):
        compose_config("layer_dropout.depth_schedule=my_exits.bad:big")
    for name, message in {
        "numbers": r"my_exits\.bad:numbers:1: int, neither a text nor a row of token ids",
        "fails": r"my_exits\.bad:fails, after document 0: OSError: the disk is gone",
        "nothing": r"my_exits\.bad:nothing: gave no document",
    }.items():
        with pytest.raises(DataError, match=message):
            prepare(compose_config("data=text", f"data.source=my_exits.bad:{name}").data, 400)
    with pytest.raises(ValueError, match=r"must be a class that derives from builtins\.dict"):
        load_class("my_exits.mine:Sums", "task.path", dict)
    assert load("my_exits.mine:n_words", "k") is load_function("my_exits.mine:n_words", "k", ("text", "reference"))
