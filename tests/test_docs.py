"""Every command of README.md and docs/ exists, and composes with the real configuration; links and files are there."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import compose_config
from documented import NEEDS, PAGES, ROOT, commands, own_parts
from hydra import compose, initialize_config_module
from hydra.errors import HydraException

from conf.command import _quoted
from conf.multirun import jobs_of
from conf.strict import ConfigError, convert
from data.config import SourceConfig
from data.sources.reading import read_documents
from docs.make_figures import FIGURES, draw
from docs.make_reference import commands as modules

CONFIGS = {c.module: (c.config_name, c.schema) for c in modules()}
COMMANDS = commands()
MAKEFILE = (ROOT / "Makefile").read_text()
README = (ROOT / "README.md").read_text()
UNAVAILABLE = {
    r"sbatch|slurm/submit": "cluster",
    r"(?<![a-z:])/?path/to|\b(PATH|LAYERSKIP|TOPV2)\b": "files",
    r"hellaswag|gsm8k|boolq": "hub",
    r"execute=true": "sandbox",
    r"^pip ": "package",
    r"^source ": "shell",
    r"^wandb |wandb\.mode=online": "account",
}
"""What stands in a command -> what its block needs then."""
OTHERS = ("pip", "source", "wandb")
"""Commands that are not ours."""


def test_commands_are_found_and_what_they_need_is_known() -> None:
    assert len(COMMANDS) > 80
    assert len({command.page for command in COMMANDS}) > 12
    assert {need for command in COMMANDS for need in command.needs} <= NEEDS.keys()


def test_what_a_test_machine_cannot_run_is_marked() -> None:
    for command in COMMANDS:
        for pattern, need in UNAVAILABLE.items():
            assert need in command.needs or not re.search(pattern, command.text), f"{command}: mark it with {need}"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reader who has followed docs/extending.md."""
    folder = tmp_path_factory.mktemp("own")
    own_parts(folder)
    return folder


@pytest.mark.parametrize("text", dict.fromkeys(command.text for command in COMMANDS))
def test_command_composes(text: str, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(own))
    check(text, own)
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_exits"]:
        del sys.modules[name]  # other tests have another of that name


@pytest.mark.parametrize(
    "text",
    [
        "python -m eval.benchmark checkpoint=outputs/demo 'exit_layrs=[2]'",
        "python -m train.pretrain experiment=demo early_exit=rotating",
        "python -m train.pretrain experiment=demo train.steps=few",
        "python -m eval.nothing checkpoint=outputs/demo",
        "python -m eval.lens checkpoint=outputs/demo 'prompt=a' exit_layers=[2]",
        "make dmo",
        "sbatch --nodes 1 --gpus-per-node 8 slurm/pretrain.sh experiment=demo train.stepz=3",
    ],
)
def test_a_wrong_command_does_not_compose(text: str, own: Path) -> None:
    with pytest.raises((AssertionError, ConfigError, HydraException)):
        check(text, own)


def check(text: str, folder: Path) -> None:
    """Raises for a command that would end before it begins its work."""
    assert not re.search(r"(?<!['\"\w.])[\w.]+=\[", text), "zsh takes unquoted brackets for a pattern"
    words = shlex.split(text.removeprefix(".venv-peers/bin/"))
    if words[0] in OTHERS or words[1] == "-c":
        return
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", MAKEFILE, re.M)
        demo = [word.removeprefix("DEMO=").split() for word in words[2:]]
        if words[1] == "demo":
            compose_config("experiment=demo", *(word for part in demo for word in part))
        return
    if words[0].startswith("EVAL="):
        module, *rest = words.pop(0).removeprefix("EVAL=").split()
        compose_command(module, [*rest, "checkpoint=PATH"], 1, folder)
    compose_command(*module_of(words), folder)


def module_of(words: list[str]) -> tuple[str, list[str], int]:
    """The module that a command runs, what follows, and the number of ranks."""
    if words[0] in ("sbatch", "slurm/submit.sh", "slurm/sweep.sh"):
        script = next(w for w in words[1:] if w.endswith(".sh"))
        for path in {script, words[0]} - {"sbatch"}:
            assert (ROOT / path).stat().st_mode & 0o111
        rest = words[words.index(script) + 1 :]
        if script == "slurm/eval.sh":
            return rest[1], [f"checkpoint={rest[0]}", *rest[2:]], 1
        if words[0] == "slurm/sweep.sh":
            rest.append("--multirun")
        nodes, gpus = (int(words[words.index(option) + 1]) for option in ("--nodes", "--gpus-per-node"))
        return "train.pretrain", rest, nodes * gpus
    # What comes before the last pipe writes the prompt.
    words = words[len(words) - words[::-1].index("|") :] if "|" in words else words
    assert words[0] in ("python", "torchrun")
    if "-m" not in words:
        assert (ROOT / words[1]).exists()
        return "", [], 1
    at = words.index("-m") + 1
    assert (ROOT / (words[at].replace(".", "/") + ".py")).exists()
    ranks = int(words[words.index("--nproc-per-node") + 1]) if "--nproc-per-node" in words else 1
    return words[at], words[at + 1 :], ranks


def compose_command(module: str, rest: list[str], world_size: int, folder: Path) -> None:
    if module not in CONFIGS or "--help" in rest:
        assert not module or module in CONFIGS or not rest, "a command with keys has a configuration"
        return
    if "--multirun" in rest:
        for job in jobs_of(rest, str):
            compose_command(module, list(job.overrides), world_size, folder)
        return
    overrides = [_quoted(w, ["gen_kwargs", "prompt"]) for w in rest if "=" in w]
    if "--config-dir" in rest:
        overrides.append(f"hydra.searchpath=[file://{folder / 'my_conf'}]")
    elif module == "train.pretrain" and not any(w.startswith("checkpoint.initial=") for w in overrides):
        compose_config(*overrides, world_size=world_size)
        return
    name, schema = CONFIGS[module]
    with initialize_config_module("conf", version_base="1.3"):
        raw = compose(name, overrides)
    if any(w.startswith("checkpoint.initial=") for w in overrides):  # its sizes are not known without it
        assert raw.model.name == "initial" or raw.checkpoint.initial
        return
    convert(raw, schema)


def links(page: Path) -> Iterator[tuple[Path, str]]:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        yield (page.parent / path if path else page), anchor


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for path, anchor in links(page):
        assert path.exists(), path
        if anchor and page.name != "configuration.md":  # that one has headings of the same name: its own test
            titles = re.findall(r"^#+ (.*)", path.read_text(), re.M)
            names = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in names, f"{path.name}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_that_are_named_exist(page: Path) -> None:
    # A path ends in a suffix or a slash, a metric does not; NAME stands for a name.
    for path in re.findall(
        r"`((?:conf|data|models|train|eval|slurm|tests|docs)/[\w/.]*(?:\.\w+|/))`", page.read_text()
    ):
        assert re.search("NAME|COMMAND", path) or (ROOT / path).exists(), path


def test_the_index_has_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index, page.name


def test_the_figures_are_those_that_are_drawn(tmp_path: Path) -> None:
    draw(tmp_path)
    assert {f.name for f in tmp_path.iterdir()} == {f.name for f in (ROOT / "docs" / "images").glob("*.svg")}
    shown = "".join(page.read_text() for page in PAGES)
    for name in FIGURES:
        assert f"](images/{name}.svg)" in shown
        assert (tmp_path / f"{name}.svg").read_text().count("<path") > 5


def test_the_text_of_its_commands_can_be_read() -> None:
    assert "data.source=tests " in README
    assert len(list(read_documents(SourceConfig(path=str(ROOT / "tests"))))) > 10
