"""The README's commands exist: make targets, modules with configurations that compose, scripts, files."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import compose_config
from hydra import compose, initialize_config_module

from conf.command import _quoted
from conf.multirun import jobs_of
from conf.strict import convert, register_schema
from data.benchmark_config import DataBenchmarkConfig
from data.config import SourceConfig
from data.prepare_config import PrepareConfig
from data.sources.reading import read_documents
from eval.config import GenerateConfig
from eval.depth.lens_config import LensConfig
from eval.depth.perplexity_config import PerplexityConfig
from eval.drafts.config import RejectionsConfig
from eval.exactness.compare_config import CompareConfig
from eval.exactness.correctness_config import CorrectnessConfig
from eval.humaneval.config import ExecuteConfig
from eval.lm.config import ExitsConfig, HarnessConfig
from eval.measure.config import BenchmarkConfig
from eval.results.sweep_config import SweepConfig
from models.convert_config import ConvertConfig
from train.cost.benchmark_config import TrainBenchmarkConfig
from train.cost.describe_config import DescribeConfig
from train.cost.scaling_runs import ScalingConfig

# Module -> its primary config and schema.
CONFIGS: dict[str, tuple[str, type]] = {
    "data.benchmark": ("data_benchmark", DataBenchmarkConfig),
    "data.prepare": ("prepare", PrepareConfig),
    "train.benchmark": ("train_benchmark", TrainBenchmarkConfig),
    "eval.benchmark": ("benchmark", BenchmarkConfig),
    "eval.compare": ("compare", CompareConfig),
    "eval.correctness": ("correctness", CorrectnessConfig),
    "eval.execute": ("execute", ExecuteConfig),
    "eval.exits": ("exits", ExitsConfig),
    "eval.generate": ("generate", GenerateConfig),
    "eval.harness": ("harness", HarnessConfig),
    "eval.lens": ("lens", LensConfig),
    "eval.perplexity": ("perplexity", PerplexityConfig),
    "eval.rejections": ("rejections", RejectionsConfig),
    "eval.sweep": ("sweep", SweepConfig),
    "models.convert": ("convert", ConvertConfig),
    "train.describe": ("describe", DescribeConfig),
    "train.scaling": ("scaling", ScalingConfig),
}
for _name, _schema in CONFIGS.values():
    register_schema(_name, _schema)
ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MANUALS = [
    f"{name}.md"
    for name in (
        "cluster",
        "data",
        "evaluation",
        "experiments",
        "harness",
        "humaneval",
        "pages",
        "rejections",
        "scaling",
        "sweep",
    )
]
DOCS = "".join((ROOT / "docs" / name).read_text() for name in MANUALS)
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README + DOCS, re.S)
    for line in block.replace("\\\n", " ").splitlines()
    if line.partition("#")[0].strip()
]
MAKEFILE = (ROOT / "Makefile").read_text()


def test_commands_are_found() -> None:
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", COMMANDS)
def test_command_exists(command: str) -> None:
    words = shlex.split(command)
    assert not re.search(r"(?<!['\"\w.])[\w.]+=\[", command), "zsh takes unquoted brackets for a pattern"
    if words[0] == "pip" or words[1] == "-c":
        return
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", MAKEFILE, re.M)
        return
    if words[0].startswith("EVAL="):
        module, *rest = words.pop(0).removeprefix("EVAL=").split()
        assert module in CONFIGS
    if words[0] in ("sbatch", "slurm/submit.sh"):
        script = next(w for w in words[1:] if w.endswith(".sh"))
        for path in {script, words[0]} - {"sbatch"}:
            assert (ROOT / path).stat().st_mode & 0o111
        rest = words[words.index(script) + 1 :]
        if script == "slurm/eval.sh":
            module, rest = rest[1], [f"checkpoint={rest[0]}", *rest[2:]]
        else:
            nodes, gpus = (int(words[words.index(option) + 1]) for option in ("--nodes", "--gpus-per-node"))
            world_size, module = nodes * gpus, "train.pretrain"
    else:
        # What comes before the last pipe writes the prompt.
        words = words[len(words) - words[::-1].index("|") :] if "|" in words else words
        assert words[0] in ("python", "torchrun")
        module = words[words.index("-m") + 1]
        assert (ROOT / (module.replace(".", "/") + ".py")).exists()
        rest = words[words.index("-m") + 2 :]
        world_size = int(words[words.index("--nproc-per-node") + 1]) if "--nproc-per-node" in words else 1
    if "--help" in rest:
        return
    if "--multirun" in rest:
        for job in jobs_of(rest, str):
            compose_config(*job.overrides)
        return
    overrides = [_quoted(w, ["gen_kwargs"]) for w in rest if "=" in w]
    if any(w.startswith("checkpoint.initial=") for w in overrides):
        with initialize_config_module("conf", version_base="1.3"):  # its sizes are not known without it
            chosen = compose("pretrain", overrides)
            assert chosen.model.name == "initial" or chosen.checkpoint.initial
        return
    if module == "train.pretrain":
        compose_config(*overrides, world_size=world_size)
    else:
        name, schema = CONFIGS[module]
        with initialize_config_module("conf", version_base="1.3"):
            convert(compose(name, overrides), schema)


def test_files_exist() -> None:
    for path in re.findall(r"`((?:conf|data|models|train|eval|slurm|tests|docs)/[\w/.]*)`", README):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / path).exists(), path


def test_the_text_of_its_commands_can_be_read() -> None:
    assert "data.source=tests " in README
    assert len(list(read_documents(SourceConfig(path=str(ROOT / "tests"))))) > 10
