"""train.scaling: it trains on each number of ranks, and refuses mistakes before the first run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from conf.strict import ConfigError, register_schema
from train.config import PretrainConfig
from train.cost.scaling_runs import ScalingConfig, ScalingRow, scaling_table
from train.scaling import scale

ROOT = Path(__file__).parent.parent
register_schema("pretrain", PretrainConfig)
register_schema("scaling", ScalingConfig)

BAD = {
    "train.local_batch_size=null": r"train\.local_batch_size=null: weak scaling needs the rows of a rank",
    "scaling.ranks=[]": r"scaling\.ranks=\[\]: must be numbers from 1 on, ascending",
    "scaling.ranks=[2,1]": r"scaling\.ranks=\[2, 1\]: must be",
    "scaling.steps=0": r"scaling\.steps=0: must be at least 1",
    "parallelism.tensor=2": r"parallelism\.replicate \* parallelism\.tensor=2: must divide the number of ranks, 1",
    "scaling.output=/proc/none/a.json": r"scaling\.output=/proc/none/a\.json: ",
}


@pytest.mark.parametrize(("override", "message"), BAD.items(), ids=BAD.keys())
def test_mistakes(override: str, message: str, tmp_path: Path) -> None:
    options = ["train.local_batch_size=2", f"scaling.output={tmp_path}/a.json", override]
    with initialize_config_module("conf", version_base="1.3"):
        raw = compose("scaling", options)
    with pytest.raises(ConfigError, match=message) as error:
        scale(raw)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def row(ranks: int, speed: float, efficiency: float) -> ScalingRow:
    return ScalingRow(
        ranks=ranks,
        processors=ranks,
        tokens_per_second=speed,
        tokens_per_second_quartiles=(speed - 100, speed + 100),
        efficiency=efficiency,
        sent_bytes=3 * 2**20,
        load_before=0.1,
        parallelism="",
        model="",
        rows_per_rank=1,
        seq_len=1,
        precision="",
        threads=1,
        hardware="a machine",
        torch="",
        commit="",
    )


def test_table() -> None:
    lines = scaling_table([row(1, 1000, 1.0), row(2, 1900, 0.95)]).splitlines()
    assert lines[2].split() == ["2", "2", "1,900", "1,800-2,000", "0.950", "3"]


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "train.scaling", *words], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_two_ranks(tmp_path: Path, tiny_run: list[str]) -> None:
    output = tmp_path / "s.json"
    ours = ["scaling.ranks=[1,2]", "scaling.steps=3", "scaling.warmup=1", f"scaling.output={output}"]
    done = command(*tiny_run, *ours)
    assert done.returncode == 0, done.stderr
    one, two = json.loads(output.read_text())
    assert (one["ranks"], two["ranks"], two["rows_per_rank"]) == (1, 2, 2)
    assert one["efficiency"] == 1
    per_processor = [r["tokens_per_second"] / r["processors"] for r in (one, two)]
    assert two["efficiency"] == pytest.approx(per_processor[1] / per_processor[0])
    assert (one["sent_bytes"], two["sent_bytes"] > 0) == (0, True)
    assert [p.name for p in tmp_path.iterdir()] == ["s.json"], "the runs' folders are gone"


@pytest.mark.slow
def test_a_run_that_fails_gives_its_own_reason(tmp_path: Path, tiny_run: list[str]) -> None:
    done = command(*tiny_run, f"data.source={tmp_path}/none", f"scaling.output={tmp_path}/s.json")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: scaling.ranks=1: ")
    assert f"{tmp_path}/none" in last
