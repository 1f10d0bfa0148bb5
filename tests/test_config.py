"""Every file in conf composes and converts; what is wrong is told in one line that names the key."""

import itertools
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import compose_config, compose_raw
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from conf.strict import ConfigError, one_line
from train.config import PretrainConfig
from train.resolve import resolve
from train.titan import trainer_config

CONF = Path(__file__).parent.parent / "conf"
GROUPS = {g.name: sorted(f.stem for f in g.glob("*.yaml")) for g in sorted(CONF.iterdir()) if g.is_dir()}
GROUPS.pop("__pycache__", None)
GROUPS.pop("eval")  # of commands, no group
GROUPS["model"].remove("initial")  # it needs a model to start from: test_initial.py
NEEDED = {f"data={choice}": ["data.source=x"] for choice in ("text", "shards", "prompt_completion")}
NEEDED |= {f"data={choice}": ["data.source=x"] for choice in ("topv2", "topv2_json")}
NEEDED |= {
    f"experiment={choice}": ["data.source=x"]
    for choice in ("topv2_1_5b", "topv2_scratch", "topv2_smollm2", "continual_smollm2")
}
NEEDED["data=text_and_code"] = ["data.source=x"]
DATASETS = GROUPS.pop("dataset")
GROUPS.pop("task")  # of eval's commands: test_tasks.py


@pytest.mark.parametrize(("group", "option"), [(g, o) for g, options in GROUPS.items() for o in options])
def test_every_yaml_composes_and_converts(group: str, option: str) -> None:
    choice = f"{group}={option}"
    config = compose_config(choice, *NEEDED.get(choice, []), world_size=1)
    assert isinstance(config, PretrainConfig)


@pytest.mark.parametrize("choice", DATASETS)
def test_every_dataset_joins_a_mixture(choice: str) -> None:
    more = [f"+dataset@data.sources.more={choice}", "data.sources.more.weight=1", "data.sources.stdlib.weight=3"]
    if choice in ("text", "prompt_completion", "topv2"):
        more.append("data.sources.more.path=x")
    sources = compose_config(*more).data.sources
    assert sources["more"].path
    assert sources["stdlib"].weight == 3.0


@pytest.mark.parametrize(("experiment", "model"), itertools.product(GROUPS["experiment"], GROUPS["model"]))
def test_every_experiment_with_every_model(experiment: str, model: str) -> None:
    choice = f"experiment={experiment}"
    config = compose_config(choice, f"model={model}", "train.steps=20", "train.seq_len=64", *NEEDED.get(choice, []))
    assert config.model.name == model, "the command line beats the experiment's own choice"
    assert (config.train.steps, config.train.seq_len) == (20, 64)
    own = f"outputs/{experiment}" if model == f"llama_{experiment}" else None
    assert model in config.run_dir or config.run_dir == own, "two runs do not share a folder"


def test_the_demo_lies_where_make_demo_and_the_readme_look_for_it() -> None:
    assert compose_config("experiment=demo").run_dir == "outputs/demo"
    assert compose_config("experiment=demo", "model=llama_debug").run_dir == "outputs/demo-llama_debug"


def test_experiments_only_choose_groups_and_set_run_level_values() -> None:
    run_level = {"defaults", "recipe", "train", "checkpoint", "validation", "wandb"}
    for path in (CONF / "experiment").glob("*.yaml"):
        text = path.read_text()
        assert text.startswith("# @package _global_")
        assert set(re.findall(r"^(\w+):", text, re.M)) <= run_level, path


BAD = {
    "model.dims=3": r"model\.dims: unknown key \(did you mean dim\?\); allowed: name, dim, n_layers",
    "+model.dims=3": r"model\.dims: unknown key \(did you mean dim\?\)",
    "+surprise=1": r"surprise: unknown key.*allowed: recipe, run_dir, model",
    "trian.steps=3": r"trian",
    "expriment=demo": r"expriment",
    "experiment=none": r"experiment/none.*Available options.*demo",
    "model=llama_2b": r"model/llama_2b.*llama_debug",
    "model.dim=abc": r"model\.dim: .*'abc'.*[Ii]nteger",
    "train.steps=1.5": r"train\.steps: .*1\.5.*[Ii]nteger",
    "train.precision=fp64": r"train\.precision: .*fp64.*auto, bf16, fp32",
    "layer_dropout.p_max=1.5": r"layer_dropout\.p_max=1\.5: must be at least 0 and below 1",
    "layer_dropout.depth_schedule=steep": r"layer_dropout\.depth_schedule: .*exponential, linear, constant",
    "early_exit.rotation_period=0": r"early_exit\.rotation_period=0: must be null or at least 1",
    "early_exit.e_scale=2": r"early_exit\.e_scale=2\.0: must lie in 0\.\.1",
    "validation.exit_layers=[2,7]": r"validation\.exit_layers=7: must lie in 1\.\.n_layers=6",
    "validation.exit_layers=[2.5]": r"validation\.exit_layers=2\.5: must lie in 1\.\.n_layers=6",
    "validation.exit_layers=[0]": r"validation\.exit_layers=0: must lie in 1\.\.n_layers=6",
    "model.n_heads=5": r"model\.n_heads=5: must divide model\.dim=64",
    "model.n_kv_heads=3": r"model\.n_kv_heads=3: must divide model\.n_heads=4",
    "model.n_layers=1": r"model\.n_layers=1: must be at least 2",
    "train.local_batch_size=5": r"train\.global_batch_size=16: must be a multiple of .* 5 \* 1 = 5",
    "train.seq_len=4096": r"train\.seq_len=4096: at most max_seq_len=1024",
    "train.steps=0": r"train\.steps=0: must be at least 1",
    "data=text": r"data\.source: missing",
    "+data.sources.stdlib.txet=a": r"data\.sources\.stdlib\.txet: unknown key",
    "data.sources.stdlib.txet=a": r"data\.sources\.stdlib\.txet: unknown key",
    "+data.sources.web.path=a": r"begin a new entry with a group's choice: \+dataset@data\.sources\.NAME=text",
    "data.packing=best": r"data\.packing: .*concat, best_fit",
    "data.stream_lanes=0": r"data\.stream_lanes=0: must be at least 1",
    "data.tokenizer.vocab_size=9000": r"data\.tokenizer\.vocab_size=9000: at most model\.vocab_size=4096",
    "data.validation_fraction=0": r"data\.validation_fraction=0\.0: must lie between 0 and 1",
    "parallelism.shard=3": r"parallelism\.replicate \* parallelism\.shard=3: must equal the number of ranks, 1",
    "parallelism.tensor=2": r"parallelism\.replicate \* parallelism\.tensor=2: must divide the number of ranks, 1",
    "parallelism.context=0": r"parallelism\.context=0: must be at least 1",
    "parallelism.pipeline=2": r"parallelism\.pipeline=2: pipeline stages cannot have exits; use parallelism\.shard or",
    "checkpoint.keep=1": r"checkpoint\.keep=1: must be 0 \(all\) or at least 2",
    "lr_scheduler.warmup_ratio=1": r"lr_scheduler\.warmup_ratio=1\.0: must be at least 0 and below 1",
    "lr_scheduler.decay_ratio=2": r"lr_scheduler\.decay_ratio=2\.0: must be above 0, at most 0\.95",
    "optimizer.lr=0": r"optimizer\.lr=0\.0: must be above 0",
    "train.seed=-1": r"train\.seed=-1: must be at least 0",
    "train.steps=": r"train\.steps",
    "train.steps=[": r"train\.steps=\[",
}


@pytest.mark.parametrize(("override", "message"), BAD.items(), ids=BAD.keys())
def test_mistakes_are_told_in_one_line(override: str, message: str) -> None:
    with pytest.raises((ConfigError, HydraException, OmegaConfBaseException)) as error:
        resolve(compose_raw(override), 1)
    line = one_line(error.value, PretrainConfig)
    assert re.search(message, line), line
    assert "\n" not in line


RANKS = {
    "parallelism.tensor=8": r"parallelism\.tensor=8: must divide model\.n_heads=4",
    "parallelism.tensor=4": r"parallelism\.tensor=4: must divide model\.n_kv_heads=2",
    "parallelism.tensor=2 model.ffn_dim=181": r"parallelism\.tensor=2: must divide model\.ffn_dim=181",
    "parallelism.tensor=2 train.seq_len=127": r"train\.seq_len=127: must be a multiple of 2, with .*tensor=2",
    "parallelism.tensor=2 parallelism.context=2 train.seq_len=132": r"must be a multiple of 8, with .* context=2",
    "parallelism.shard=8 parallelism.tensor=2": r"shard \* parallelism\.tensor=16: must equal the number of ranks, 8",
    "parallelism.context=2 train.global_batch_size=18": r"local_batch_size \* data-parallel ranks = 1 \* 4",
}


@pytest.mark.parametrize(("overrides", "message"), RANKS.items(), ids=RANKS.keys())
def test_degrees_that_do_not_fit_are_refused(overrides: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose_config(*overrides.split(), world_size=8)


def test_ranks_that_share_rows_count_once() -> None:
    options = ["train.global_batch_size=16", "parallelism.tensor=2", "parallelism.context=2"]
    assert compose_config(*options, world_size=8).train.local_batch_size == 8


def test_a_step_that_trains_nothing_is_refused() -> None:
    options = ["early_exit=rotational", "early_exit.rotation_period=6", "early_exit.include_last_layer=false"]
    with pytest.raises(ConfigError, match=r"early_exit\.include_last_layer=False: no exit has a weight at step 0"):
        compose_config(*options)


def test_what_is_left_to_the_machine_is_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compose_config("train.global_batch_size=24", world_size=4).train.local_batch_size == 6
    for can, precision in (({"amx_bf16": True}, "bf16"), ({"avx512_bf16": True, "amx_bf16": False}, "fp32")):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda can=can: can)
        assert compose_config().train.precision == precision
    assert compose_config("train.precision=bf16").train.precision == "bf16"


def test_several_missing_values_are_told_together() -> None:
    raw = compose_raw("data=text", "train.steps=???")
    with pytest.raises(ConfigError, match=r"data\.source, train\.steps: missing"):
        resolve(raw, 1)


def command(*arguments: str, launcher: tuple[str, ...] = (sys.executable, "-m")) -> subprocess.CompletedProcess[str]:
    root = CONF.parent
    return subprocess.run([*launcher, "train.pretrain", *arguments], cwd=root, capture_output=True, text=True)


def test_command_line_ends_with_status_2_and_one_line() -> None:
    done = command("+model.dims=3")
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"error: model\.dims: unknown key [^\n]*\n", done.stderr), done.stderr


def test_missing_data_is_told_before_anything_starts(tmp_path: Path) -> None:
    done = command("data=text", f"data.source={tmp_path}/none", f"run_dir={tmp_path}/run")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: [^\n]*/none: no \.txt[^\n]*\n", done.stderr), done.stderr
    assert not (tmp_path / "run").exists()


def test_what_goes_on_from_a_model_is_not_begun_without_its_weights(tmp_path: Path) -> None:
    done = command("experiment=continual_llama2_7b", "train.global_batch_size=4", f"run_dir={tmp_path}/run")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: checkpoint\.initial: missing; this recipe goes on from[^\n]*\n", done.stderr), (
        done.stderr
    )
    assert not (tmp_path / "run").exists()


def test_under_torchrun_rank_0_alone_prints_it() -> None:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m")
    done = command("experiment=demo", "layer_dropout.p_max=1.5", launcher=torchrun)
    assert done.returncode != 0
    assert done.stderr.count("error: layer_dropout.p_max=1.5: must be at least 0 and below 1") == 1
    assert 'Traceback (most recent call last):\n  File "' + str(CONF.parent) not in done.stderr


def test_cfg_job_prints_the_composed_config() -> None:
    done = command("experiment=demo", "model=llama_debug", "train.steps=20", "--cfg", "job")
    assert done.returncode == 0
    assert "steps: 20" in done.stdout
    assert "name: llama_debug" in done.stdout


# Fields that torchtitan never sees: sections and keys that our own code consumes.
OURS = {
    "recipe",
    "run_dir",
    "wandb",
    "tensorboard",
    "validation",
    "layer_dropout",
    "early_exit",
    "data",
    "plugins",
    "bad_steps",
    "cluster",
    "profiler",
}
# The latter: train/resolve.py, train/initial.py and train/pretrain.py.
CONSUMED_BY_US = {"model.name", "checkpoint.initial", "checkpoint.needs_initial"}
CONSUMED_BY_US |= {"train.fp8", "train.expandable_segments"}  # test_gpu_keys.py
CONSUMED_BY_US |= {"train.epochs", "train.records_per_step"}  # test_records.py


def leaves(config: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        found |= leaves(value, f"{prefix}{field.name}.") if is_dataclass(value) else {f"{prefix}{field.name}": value}
    return found


def other_value(key: str, value: Any) -> Any:
    special = {
        "model.dim": 128, "model.n_heads": 2, "model.n_kv_heads": 4, "train.global_batch_size": 32,
        "train.local_batch_size": 4, "lr_scheduler.decay_ratio": 0.5, "parallelism.shard": 1,
        "checkpoint.keep": 5, "checkpoint.keep_every": 100,
        "checkpoint.every_minutes": 5.0, "optimizer.beta1": 0.5, "optimizer.beta2": 0.5,
    }  # fmt: skip
    if key in special:
        return special[key]
    if isinstance(value, bool):
        return not value
    if hasattr(type(value), "__members__"):
        return next(m for m in reversed(type(value)) if m is not value)
    return value * 2 if value else type(value)(1)


def titan_view(config: PretrainConfig) -> str:
    corpus: Any = SimpleNamespace(tokenizer=SimpleNamespace(vocab_size=4096))
    built = trainer_config(config, corpus)
    return re.sub(
        r" at 0x\w+", "", "\n".join(repr(getattr(built, f.name)) for f in fields(built) if f.name != "recipe")
    )


def test_no_field_is_dead() -> None:
    config = compose_config("experiment=demo", "model=llama_debug")
    base = titan_view(config)
    for key, value in leaves(config).items():
        section, _, name = key.rpartition(".")
        if key.partition(".")[0] in OURS or key in CONSUMED_BY_US:
            continue
        owner = config
        for part in section.split("."):
            owner = getattr(owner, part)
        setattr(owner, name, other_value(key, value))
        assert titan_view(config) != base, f"{key} changes nothing"
        setattr(owner, name, value)


def test_our_own_fields_are_read_somewhere() -> None:
    source = "\n".join(
        f.read_text()
        for p in ("train", "data", "models")
        for f in (CONF.parent / p).rglob("*.py")
        if f.name != "config.py"
    )
    for key in leaves(compose_config("experiment=demo")):
        if key.partition(".")[0] not in OURS:
            continue  # the test above
        assert re.search(rf"\.{key.rpartition('.')[2]}\b", source), f"{key} is read nowhere"
