"""The commands of the first pages of the documentation, run as they stand in a fresh copy, on a model of seconds."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documented import ROOT, Command, commands

pytestmark = pytest.mark.slow
PAGES = ("README.md", *(f"docs/{name}.md" for name in ("quick_start", "recipe", "decoding", "tuning", "formats")))
PAGES += tuple(f"docs/{name}.md" for name in ("data", "pages"))
# What makes a command short: keys that it gets unless it sets them itself.
TRAINING = {
    "model.dim": 32,
    "model.n_layers": 16,
    "model.n_heads": 2,
    "model.n_kv_heads": 1,
    "model.ffn_dim": 48,
    "data.tokenizer.max_train_megabytes": 1,
    "train.steps": 4,
    "train.seq_len": 64,
    "checkpoint.every": 2,
    "validation.every": 2,
    "validation.tokens": 256,
    "validation.final_tokens": 512,
}
TASK = {"task.n_samples": 2, "task.max_new_tokens": 16}
SHORT = {
    "train.pretrain": TRAINING,
    "train.describe": {},
    "train.acceptance": {},
    "train.report": {},
    "train.benchmark": {"model.dim": 32, "model.n_layers": 3, "seq_len": 32, "rounds": 1, "model.vocab_size": 256},
    "data.prepare": {"tokenizer.max_train_megabytes": 1},
    "eval.autotune": TASK,
    "eval.benchmark": TASK,
    "eval.sweep": TASK,
    "eval.generate": {"max_new_tokens": 16},
    "eval.perplexity": {"max_tokens": 500},
    "eval.compare": {},
    "eval.lens": {},
    "models.convert": {},
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh copy of the project in which `make demo` has run, and with the files that the pages speak of."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("conf", "data", "docs", "eval", "models", "tests", "train", "README.md", "Makefile", "pyproject.toml"):
        source = ROOT / name
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, folder / name, ignore=ignored) if source.is_dir() else shutil.copy(
            source, folder / name
        )
    texts = [path.read_text() for path in sorted((ROOT / "eval").rglob("*.py"))]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"content": text}) + "\n" for text in texts))
    prompts = [{"prompt": "import os", "id": "a"}, {"prompt": "def f(x):", "reference": " return x"}]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    run("make demo", folder)
    (folder / "done.txt").write_text("make demo\n")
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page(page: str, clone: Path) -> None:
    texts = [c.text for c in commands() if c.page == page and can_run(c)]
    assert texts
    done = clone / "done.txt"  # what an earlier page has in the same words is not run twice
    for text in texts:
        if text not in done.read_text().splitlines():
            run(text, clone)
            with done.open("a") as stream:
                stream.write(text + "\n")
    if page == "docs/quick_start.md":
        assert (clone / "outputs" / "mine" / "perplexity_by_exit.png").stat().st_size > 1000
        assert list((clone / "outputs" / "mine").glob("lens_*.html"))
        assert (clone / "outputs" / "mine-hf" / "model.safetensors").exists()


def can_run(command: Command) -> bool:
    return not command.needs and command.text != "make test"


def run(text: str, folder: Path) -> None:
    """Run it with the keys that make it short. `make demo` is the commands of the Makefile."""
    if text == "make demo":
        for line in recipe_of_demo():
            run(line, folder)
        return
    print(text, flush=True)
    line = shortened(text).replace("python -m", f"{shlex.quote(sys.executable)} -m")
    environment = os.environ | {"PYTHONPATH": str(folder), "WANDB_MODE": "offline"}
    done = subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert "Traceback" not in done.stderr


def recipe_of_demo() -> list[str]:
    [lines] = re.findall(r"^demo:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    return [
        re.sub(r"\$\(\w+\)/python|\$\(\w+\)", lambda m: "python" if "python" in m[0] else "", x).strip()
        for x in lines.splitlines()
    ]


def shortened(text: str) -> str:
    module = re.search(r"-m (\S+)", text)
    if module is None or re.search(r"--(help|cfg|info)", text):
        return text
    given = {word.partition("=")[0].lstrip("+") for word in shlex.split(text)}
    extra = {key: value for key, value in SHORT[module[1]].items() if key not in given}
    return " ".join([text, *(f"{key}={value}" for key, value in extra.items())])


def test_the_demo_is_that_of_the_makefile() -> None:
    train, benchmark = recipe_of_demo()
    assert train == "python -m train.pretrain experiment=demo run_dir=outputs/demo"
    assert benchmark == "python -m eval.benchmark checkpoint=outputs/demo"
