"""The command from a checkpoint to its files: settings, resuming, stop rules, baseline and ablation."""

import csv
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from evaluation import write_jsonl
from hydra import compose, initialize_config_module

from conf.strict import ConfigError, register_schema
from data.config import DataError
from eval.benchmark import benchmark
from eval.config import ExitStates, Mode
from eval.engine.policy import Autoregressive, DraftModel, EarlyExit, PromptLookup, SelfSpeculative
from eval.engine.stopping import StopRule
from eval.measure import contest
from eval.measure.config import BenchmarkConfig
from eval.measure.timing import Timed, timed_together
from eval.policies import policies
from eval.tasks.cnn_dm import CnnDm
from eval.tasks.held_out import HeldOut
from eval.tasks.task import Task

register_schema("benchmark", BenchmarkConfig)
SETTINGS = ["num_speculations=[1,3]", "exit_layers=[1,2]"]
SMALL = ["task.n_samples=2", "task.prompt_tokens=8", "task.max_new_tokens=12", *SETTINGS]
KEYS = {
    "mode",
    "exit_layer",
    "num_speculations",
    "tokens_per_second",
    "ms_per_token",
    "acceptance_rate",
    "tokens_per_round",
    "speedup",
    "ideal_speedup",
    "identical_output",
    "near_ties",
    "distinct_4grams",
    "hardware",
    "threads",
    "dtype",
    "commit",
    "task",
    "n_samples",
    "seed",
}


def call(*overrides: str) -> list[dict[str, Any]]:
    with initialize_config_module("conf", version_base="1.3"):
        raw = compose("benchmark", list(overrides))
    return [row.as_json() for row in benchmark(raw)]


def test_policies() -> None:
    assert policies(4, [2], [3, 1]) == [Autoregressive(), EarlyExit(2), SelfSpeculative(2, 1), SelfSpeculative(2, 3)]
    assert policies(32, [8], [12], modes=[Mode.self_speculative], exit_states=list(ExitStates)) == [
        Autoregressive(),
        SelfSpeculative(8, 12),
        SelfSpeculative(8, 12, reuse_exit_states=False),
    ]
    for bad in (0, 4):
        with pytest.raises(ConfigError, match=rf"exit_layers={bad}: must lie in 1\.\.3"):
            policies(4, [bad], [1])


def test_other_drafts_are_policies_where_they_are_named() -> None:
    modes = [Mode.prompt_lookup, Mode.draft_model]
    assert policies(4, [2], [3, 1], modes=modes) == [
        Autoregressive(),
        *(PromptLookup(d) for d in (1, 3)),
        *(DraftModel(2, d) for d in (1, 3)),
    ]


def test_the_settings_of_a_task() -> None:
    assert HeldOut().exit_layers(32) == [4, 6, 8, 16]
    assert HeldOut().exit_layers(2) == [1]
    assert HeldOut().num_speculations() == [2, 3, 4, 6]
    assert CnnDm().num_speculations() == [12]
    assert CnnDm(max_new_tokens=5).num_speculations() == [4], "a draft is shorter than the text"


@pytest.fixture
def outputs(trained: Path) -> Iterator[Path]:
    """The run folder, whose benchmarks are removed again."""
    yield trained
    for file in trained.glob("benchmark*"):
        file.unlink()


def test_from_a_run_folder_to_its_files(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = call(f"checkpoint={outputs}", *SMALL, "machine.dtype=float64")
    out = capsys.readouterr().out
    assert [(r["mode"], r["exit_layer"], r["num_speculations"]) for r in rows] == [
        ("autoregressive", 4, 0),
        ("early_exit", 1, 0),
        ("early_exit", 2, 0),
        *(("self_speculative", e, d) for e in (1, 2) for d in (1, 3)),
    ]
    name = "benchmark_n_samples-2_max_new_tokens-12_prompt_tokens-8_exit_layers-1-2_num_speculations-1-3_dtype-float64"
    assert {f.name for f in outputs.glob("benchmark*")} == {f"{name}.json", f"{name}.csv", rows[0]["samples_file"]}
    assert json.loads((outputs / f"{name}.json").read_text()) == rows
    with (outputs / f"{name}.csv").open() as stream:
        assert [float(r["speedup"]) for r in csv.DictReader(stream)] == [r["speedup"] for r in rows]
    for row in rows:
        assert row.keys() >= KEYS
        assert (row["prompt_tokens"], row["new_tokens"]) == (8, 12)
        if row["mode"] != "early_exit":
            assert row["identical_share"] == 1
        if row["mode"] == "self_speculative":
            assert 0 <= row["acceptance_rate"] <= 1
            assert row["tokens_per_round"] <= row["num_speculations"] + 1
    assert rows[0]["same_as_transformers"] == 1
    assert "best: " in out
    assert "transformers" in out
    assert str(outputs / f"{name}.json") in out


def test_other_drafts_give_the_same_text(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    modes = "modes=[self_speculative,prompt_lookup,draft_model]"
    rows = call(
        f"checkpoint={outputs}", *SMALL, "machine.dtype=float64", modes, "exit_layers=[2]", "num_speculations=[3]"
    )
    assert [(r["mode"], r["exit_layer"], r["num_speculations"], r["exit_states"]) for r in rows[1:]] == [
        ("self_speculative", 2, 3, "reuse"),
        ("prompt_lookup", 4, 3, None),
        ("draft_model", 2, 3, None),
    ]
    assert all(r["identical_output"] and r["identical_share"] == 1 for r in rows)
    own, lookup, other = rows[1:]
    assert own["acceptance_rate"] == other["acceptance_rate"], "the first layers draft alike with a cache of their own"
    assert lookup["ideal_speedup"] == pytest.approx(lookup["tokens_per_round"])
    assert all(r["measured_cost_ideal"] > 0 for r in rows)
    assert "prompt_lookup" in capsys.readouterr().out


def test_drawn_text(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["exit_layers=[2]", "num_speculations=[3]", "modes=[self_speculative]"]
    rows = call(f"checkpoint={outputs}", *SMALL, *small, "task.sampling.temperature=1", "task.sampling.min_p=0.01")
    assert {r["sampling"] for r in rows} == {"temperature=1 min_p=0.01"}
    assert {r["identical_output"] for r in rows} == {None}
    assert "transformers" not in rows[0], "it would decode greedily"
    text = capsys.readouterr().out
    assert "tokens chosen with temperature=1 min_p=0.01" in " ".join(text.split())
    assert "4-grams" in text


@pytest.fixture(scope="session")
def own_prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = ["import os\n", "def main(", "class A:\n    def ", "# ", "return self."]
    rows = [{"prompt": t, "reference": "import os and sys", "id": str(i)} for i, t in enumerate(texts)]
    return write_jsonl(tmp_path_factory.mktemp("prompts") / "p.jsonl", rows)


def arguments(trained: Path, prompts: Path, output: Path) -> list[str]:
    task = ["task=prompts", f"task.source={prompts}", "task.max_new_tokens=10"]
    return [f"checkpoint={trained}", *task, *SETTINGS, "machine.dtype=float64", f"output={output}"]


def texts(ledger: Path) -> list[dict[str, Any]]:
    """The records of a ledger, without what differs from time to time."""
    lines = [json.loads(line) for line in ledger.read_text().split("\n")[1:-1]]
    times = {"seconds", "cpu_seconds", "round_seconds", "passes"}
    return [{key: value for key, value in line.items() if key not in times} for line in lines]


def ledger(folder: Path) -> Path:
    (found,) = folder.glob("out.samples-*.jsonl")
    return found


class Counting:
    """Stands for eval.measure.timing.timed_together: counts, and is interrupted at one call."""

    def __init__(self, interrupted_at: int = 1 << 30) -> None:
        self.n, self.interrupted_at = 0, interrupted_at

    def __call__(self, *arguments: Any) -> list[Timed]:
        self.n += 1
        if self.n == self.interrupted_at:
            raise KeyboardInterrupt
        return timed_together(*arguments)


def test_a_killed_benchmark_goes_on(
    trained: Path,
    own_prompts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    rows = call(*arguments(trained, own_prompts, whole / "out.json"))
    again = arguments(trained, own_prompts, killed / "out.json")
    # 7 settings run once before, and then for each of 5 samples: killed in the third.
    monkeypatch.setattr(contest, "timed_together", Counting(interrupted_at=7 + 2 * 7 + 4))
    with pytest.raises(KeyboardInterrupt):
        call(*again)
    assert texts(ledger(killed)) == texts(ledger(whole))[: 2 * 7]
    # A kill while the third is written leaves some of its lines, and half of one.
    with ledger(killed).open("ab") as stream:
        lines = ledger(whole).read_bytes().splitlines(keepends=True)
        stream.write(lines[15] + lines[16] + lines[17][:50])
    monkeypatch.setattr(contest, "timed_together", counting := Counting())
    resumed = call(*again)
    assert counting.n == 7 + 3 * 7
    assert texts(ledger(killed)) == texts(ledger(whole))
    for one, other in zip(resumed, rows, strict=True):
        for key in ("rouge2", "rouge2_low", "rougeL_paper", "acceptance_rate", "identical_share", "new_tokens"):
            assert one[key] == other[key]
    capsys.readouterr()
    assert call(*again) == resumed
    assert counting.n == 7 + 3 * 7, "nothing is measured twice"
    assert "has all samples from an earlier start; fresh=true" in capsys.readouterr().out
    call(*again, "fresh=true")
    assert counting.n == 7 + 3 * 7 + 7 + 5 * 7
    assert texts(ledger(killed)) == texts(ledger(whole))


def test_other_settings_do_not_mix(trained: Path, own_prompts: Path, tmp_path: Path) -> None:
    first = arguments(trained, own_prompts, tmp_path / "out.json")
    call(*first, "task.n_samples=1")
    before = {f: f.read_bytes() for f in tmp_path.glob("*.jsonl")}
    for change in ("task.max_new_tokens=9", "num_speculations=[3]", "task.ignore_eos=true", "machine.dtype=float32"):
        call(*first, "task.n_samples=1", change)
    assert len(list(tmp_path.glob("*.jsonl"))) == 5
    assert all(f.read_bytes() == content for f, content in before.items())


def test_a_damaged_ledger_is_refused(trained: Path, own_prompts: Path, tmp_path: Path) -> None:
    again = arguments(trained, own_prompts, tmp_path / "out.json")
    call(*again)
    file = ledger(tmp_path)
    lines = file.read_bytes().splitlines(keepends=True)
    for damaged, message in (
        ([*lines[:9], b"{}\n", *lines[10:]], r":10: not a record; fresh=true"),
        ([*lines[:9], *lines[10:]], r":15: a sample before is not whole; fresh=true"),
        ([b"{}\n", *lines[1:]], r":1: not the settings of this measurement"),
    ):
        file.write_bytes(b"".join(damaged))
        with pytest.raises(DataError, match=message):
            call(*again)
        assert file.read_bytes() == b"".join(damaged), "left as it was"
    with file.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="is being written by another process"):
            call(*again, "fresh=true")


def test_baseline_and_ablation(trained: Path, own_prompts: Path, tmp_path: Path) -> None:
    more = ["exit_layers=[2]", "num_speculations=[3]", "exit_states=[reuse,recompute]", f"baseline={trained}"]
    rows = call(*arguments(trained, own_prompts, tmp_path / "out.json"), *more)
    assert [(r["mode"], r["exit_states"]) for r in rows] == [
        ("autoregressive", None),
        ("early_exit", None),
        ("self_speculative", "reuse"),
        ("self_speculative", "recompute"),
        ("baseline", None),
    ]
    autoregressive, _, reuse, recompute, baseline = rows
    assert baseline["rouge2"] == autoregressive["rouge2"]
    assert baseline["speedup_over_baseline"] == baseline["speedup_of_means_over_baseline"] == 1
    assert autoregressive["speedup_over_baseline"] == pytest.approx(1 / baseline["speedup"], rel=0.5)
    assert reuse["acceptance_rate"] == recompute["acceptance_rate"]
    assert reuse["identical_share"] == recompute["identical_share"] == 1
    assert "transformers" not in autoregressive


@pytest.mark.parametrize("batch_size", ["1", "3"])
def test_the_end_of_text_ends_each_text_on_its_own(
    trained: Path, own_prompts: Path, tmp_path: Path, batch_size: str
) -> None:
    again = arguments(trained, own_prompts, tmp_path / "out.json")
    n_tokens = {r["id"]: len(r["tokens"]) for r in texts_of(again, tmp_path)}
    assert set(n_tokens.values()) == {10}
    # Let what the model writes third in its first text be the end of a text.
    third = texts_of(again, tmp_path)[0]["tokens"][2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Task, "stop", lambda self, _: StopRule(max_new_tokens=10, eos_ids=frozenset({third})))
        records = texts_of([*again, "fresh=true", "transformers=true", f"batch_size={batch_size}"], tmp_path)
    assert {row["batch_size"] for row in json.loads((tmp_path / "out.json").read_text())} == {int(batch_size)}
    autoregressive = {r["id"]: r for r in records if r["mode"] == "autoregressive"}
    assert len(autoregressive["0"]["tokens"]) <= 3
    assert len({len(r["tokens"]) for r in autoregressive.values()}) > 1
    for record in records:
        assert third not in record["tokens"][:-1]
        if record["mode"] in ("self_speculative", "transformers"):
            assert record["tokens"] == autoregressive[record["id"]]["tokens"]
            assert record["identical"] is True


def texts_of(overrides: list[str], folder: Path) -> list[dict[str, Any]]:
    for file in folder.glob("*.jsonl"):
        file.unlink()
    call(*overrides)
    return texts(ledger(folder))


BAD = {
    ("exit_layers=[4]",): r"exit_layers=4: must lie in 1\.\.3",
    ("num_speculations=[0]",): r"num_speculations=0: must be at least 1",
    ("task.max_new_tokens=2",): r"num_speculations=3: must be below task.max_new_tokens=2",
    ("task.prompt_tokens=2000",): r"task.prompt_tokens \+ task.max_new_tokens=2012: must be at most the context's",
    ("task.n_samples=100000",): r"task.n_samples=100000: the text has [\d,]+ tokens, too few",
    ("output=x.txt",): r"output=x\.txt: must end in \.json",
    ("output=/proc/x.json",): r"output=/proc/x\.json: ",
    ("exit_states=[]",): r"exit_states: give reuse, recompute or both",
    ("pass_samples=0",): r"pass_samples=0: must be at least 1",
    ("batch_size=0",): r"batch_size=0: must be at least 1, or auto",
    ("batch_size=many",): r"batch_size=many: must be at least 1, or auto",
    (
        "task=humaneval",
        "task.sampling.temperature=0.5",
        "task.max_new_tokens=4",
        "transformers=true",
    ): r"transformers=true: decodes",
}


@pytest.mark.parametrize(("overrides", "message"), BAD.items(), ids=[" ".join(a) for a in BAD])
def test_mistakes_are_told_before_anything_is_measured(trained: Path, overrides: tuple[str, ...], message: str) -> None:
    small = SETTINGS if overrides[0].startswith("task=") else SMALL
    with pytest.raises(ConfigError, match=message):
        call(f"checkpoint={trained}", *small, *overrides)
