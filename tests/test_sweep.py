"""A sweep: its grid, the best d of each exit, the front, the figures, and the command with its files."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_model
from evaluation import FACTS, record, speculative
from hydra import compose, initialize_config_module
from matplotlib.patches import Rectangle
from test_benchmark import Counting

from conf.strict import ConfigError, register_schema
from eval.measure import contest
from eval.measure.records import Record
from eval.results.heat_map import save_png
from eval.results.row import Row
from eval.results.rows import benchmark_rows
from eval.results.sweep_config import SweepConfig, drafts_to_sweep, exits_to_sweep
from eval.results.sweep_findings import SweepRow, best_of_exits, equal_prefix, pareto, with_findings
from eval.results.sweep_plots import front, heat_maps
from eval.results.sweep_table import sweep_table
from eval.sweep import sweep
from eval.tasks.task import Sample, Task
from models.storage.recommended import recommended

register_schema("sweep", SweepConfig)


def call(*overrides: str) -> list[dict[str, Any]]:
    with initialize_config_module("conf", version_base="1.3"):
        raw = compose("sweep", list(overrides))
    return [row.as_json() for row in sweep(raw)]


def test_the_grid_by_itself() -> None:
    assert exits_to_sweep(16) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert exits_to_sweep(32) == [2, 4, 6, 8, 10, 12, 14, 16]
    assert exits_to_sweep(24) == [2, 3, 5, 6, 8, 9, 11, 12]
    assert [exits_to_sweep(n) for n in (2, 3, 5)] == [[1], [1], [1, 2]]
    assert drafts_to_sweep(96) == [1, 2, 3, 4, 6, 8, 12]
    assert [drafts_to_sweep(n) for n in (5, 2, 1)] == [[1, 2, 3, 4], [1], [1]]


def test_the_best_d_of_each_exit() -> None:
    def measured(e: int, d: int, seconds: float, mode: str = "self_speculative") -> Record:
        return speculative(exit_layer=e, num_speculations=d, seconds=seconds, mode=mode)

    early = measured(1, 0, 1.0, "early_exit")
    drafting = [
        measured(2, 1, 7.0),
        measured(2, 6, 6.0),
        measured(2, 3, 6.0),
        measured(1, 2, 9.0),
        measured(1, 4, 10.0),
    ]
    best = best_of_exits(rows([record(), *drafting, early]))
    found = [(r.setting.exit_layer, r.setting.num_speculations) for r in best]
    assert found == [(1, 2), (2, 3)], "of equally fast ones the fewest drafts"


def test_the_front() -> None:
    points = [(1.0, 0.9), (2.0, 0.9), (2.0, 0.5), (3.0, 0.5), (3.0, 0.5), (2.5, 0.4), (4.0, 0.1)]
    assert pareto(points) == [False, True, False, True, True, False, True]
    assert pareto([(1.0, 1.0)]) == [True]
    assert pareto([]) == []


def test_equal_prefix() -> None:
    assert equal_prefix([1, 2, 3, 4], [1, 2, 3, 4]) == 1
    assert equal_prefix([1, 2, 9, 4], [1, 2, 3, 4]) == 0.5
    assert equal_prefix([1, 2], [1, 2, 3, 4]) == equal_prefix([1, 2, 3, 4], [1, 2]) == 0.5


def rows(records: list[Record]) -> list[Row]:
    samples = {r.id: Sample(id=r.id, prompt="", tokens=[9, 9]) for r in records}
    return benchmark_rows(records, Task(name="t"), samples, tiny_model(), FACTS)


def found(scores: bool = True) -> tuple[list[SweepRow], str]:
    """Autoregressive decoding; early exit at 1 and 2; self-speculation at 1 and 2 with 2 and 3 drafts; of two
    samples.
    """
    records: list[Record] = []
    for id_ in "ab":
        common: dict[str, Any] = {"id": id_}
        good, bad = ({"scores": {"rouge2": s}} if scores else {} for s in (0.5, 0.25))
        early = {"mode": "early_exit", "identical": False, "tokens": [1, 2, 3, 4, 9, 9, 9, 9]} | bad
        records += [
            record(**common, **good),
            record(**common, **early, exit_layer=1, seconds=2.0),
            record(**common, **early, exit_layer=2, seconds=4.0),
            *(
                speculative(**common, **good, exit_layer=e, num_speculations=d, seconds=s)
                for e, d, s in ((1, 2, 8.0), (1, 3, 4.0), (2, 2, 5.0), (2, 3, 16.0))
            ),
        ]
    return with_findings(rows(records), records, None)


def test_findings() -> None:
    rows, quality = found()
    assert quality == "rouge2"
    assert [r.quality("equal_prefix").value for r in rows] == [1, 0.5, 0.5, 1, 1, 1, 1]
    assert [r.setting.numbers for r in rows if r.best_of_exit] == ["E=1 d=3", "E=2 d=2"]
    # Early exit at 2 is beaten by self-speculation at 1, as fast and better; autoregressive decoding by it as well.
    assert [(r.mode, r.setting.numbers) for r in rows if r.on_front] == [
        ("early_exit", "E=1"),
        ("self_speculative", "E=1 d=3"),
    ]
    assert found(scores=False)[1] == "equal_prefix"
    lines = sweep_table(rows, quality).split("\n")
    assert lines[1].split() == ["1", "3", "2.00", "2.00-2.00", "2", "0.83", "3.50", "100%", "0.500", "4.00", "0.250"]
    assert lines[2].split()[:3] == ["2", "2", "1.60"]
    assert lines[3].split()[:3] == ["4", "plain", "1.00"]
    assert lines[-1] == "on the front of speed-up and rouge2: early-exit E=1 (4.00, 0.250);" + (
        " self-speculative E=1 d=3 (2.00, 0.500)"
    )


def test_heat_maps(tmp_path: Path) -> None:
    rows, _ = found()
    figure = heat_maps(rows)
    speed, acceptance = figure.axes[:2]
    for axis in (speed, acceptance):
        assert (axis.get_xlabel(), axis.get_ylabel()) == ("tokens drafted per round, d", "exit layer, E")
        assert [t.get_text() for t in axis.get_xticklabels()] == ["2", "3"]
        assert [t.get_text() for t in axis.get_yticklabels()] == ["1", "2"]
        frames = [p for p in axis.patches if isinstance(p, Rectangle)]
        # The centres of the frames: d=3 for E=1, d=2 for E=2.
        assert [(round(p.get_center()[0], 3), round(p.get_center()[1], 3)) for p in frames] == [(1, 0), (0, 1)]
    assert [t.get_text() for t in speed.texts] == ["1.00", "2.00", "1.60", "0.50"]
    assert {t.get_text() for t in acceptance.texts} == {"83%"}
    footer = figure.get_supxlabel()
    assert all(words in footer for words in ("2 samples, seed 42", "h, 1 threads, float32", "commit abc"))
    assert save_png(figure, tmp_path / "x.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_the_front_shows_self_speculation_at_the_height_of_plain_decoding() -> None:
    rows, quality = found()
    figure = front(rows, quality)
    (axis,) = figure.axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == (
        "speed-up over autoregressive decoding (median of pairs)",
        "rouge2",
    )
    early, drafting, autoregressive = (c.get_offsets().tolist() for c in axis.collections if c.get_label()[:1] != "_")
    assert (early, drafting, autoregressive) == ([[4, 0.25], [2, 0.25]], [[2, 0.5], [1.6, 0.5]], [[1, 0.5]])
    assert {t.get_text() for t in axis.texts} == {"autoregressive", "E=1", "E=2", "E=1 d=3", "E=2 d=2"}
    steps = next(line for line in axis.lines if line.get_label() == "front")
    assert steps.get_xydata().tolist() == [[2, 0.5], [4, 0.25]]


SMALL = ["task.n_samples=2", "task.prompt_tokens=8", "task.max_new_tokens=12", "num_speculations=[1,3]"]


def test_from_a_checkpoint_to_its_files(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    again = [f"checkpoint={trained}", *SMALL, f"output={tmp_path}/s.json", "machine.dtype=float64"]
    # 7 settings run once before, and then for each sample: killed in the second.
    monkeypatch.setattr(contest, "timed_together", Counting(interrupted_at=7 + 7 + 3))
    with pytest.raises(KeyboardInterrupt):
        call(*again)
    assert not list(tmp_path.glob("s.json"))
    monkeypatch.setattr(contest, "timed_together", counting := Counting())
    rows = call(*again)
    assert counting.n == 7 + 7, "the first sample is not measured again"
    assert [(r["mode"], r["exit_layer"], r["num_speculations"]) for r in rows] == [
        ("autoregressive", 4, 0),
        ("early_exit", 1, 0),
        ("early_exit", 2, 0),
        *(("self_speculative", e, d) for e in (1, 2) for d in (1, 3)),
    ]
    assert all(r["identical_share"] == r["equal_prefix"] == 1 for r in rows if r["mode"] == "self_speculative")
    assert json.loads((tmp_path / "s.json").read_text()) == rows
    with (tmp_path / "s.csv").open() as stream:
        assert [r["best_of_exit"] for r in csv.DictReader(stream)] == [str(r["best_of_exit"]) for r in rows]
    for figure in ("s_heat_maps.png", "s_front.png"):
        assert (tmp_path / figure).read_bytes().startswith(b"\x89PNG\r\n")
    assert "best: " in capsys.readouterr().out


def test_the_best_becomes_the_recommended_setting(trained: Path, tmp_path: Path) -> None:
    assert recommended(trained) is None
    try:
        rows = call(f"checkpoint={trained}", *SMALL, f"output={tmp_path}/s.json", "recommend=true")
        best = max((r for r in rows if r["mode"] == "self_speculative"), key=lambda r: r["speedup"])
        found = recommended(trained)
        assert found is not None
        assert (found.exit_layer, found.num_speculations) == (best["exit_layer"], best["num_speculations"])
        assert (found.speedup, found.file) == (best["speedup"], trained / "recommended.json")
    finally:
        (trained / "recommended.json").unlink(missing_ok=True)


BAD = {
    ("exit_layers=[4]",): r"exit_layers=4: must lie in 1\.\.3",
    ("num_speculations=[12]",): r"num_speculations=12: must be below task.max_new_tokens=12",
    (
        "task=prompts",
        "task.source=x",
        "task.max_new_tokens=1",
    ): r"num_speculations=1: must be below task.max_new_tokens=1",
    ("quality=rouge2",): r"quality=rouge2: must be equal_prefix$",
    ("task=topv2", "task.source=x", "quality=malformed"): r"quality=malformed: must be exact_match or equal_prefix$",
    ("repeats=0",): r"repeats=0: must be at least 1",
    ("output=x.csv",): r"output=x\.csv: must end in \.json",
    ("output=/proc/x.json",): r"output=/proc/x\.json: ",
}


@pytest.mark.parametrize(("overrides", "message"), BAD.items(), ids=[" ".join(a) for a in BAD])
def test_mistakes_are_told_before_anything_is_measured(trained: Path, overrides: tuple[str, ...], message: str) -> None:
    small = [] if overrides[0].startswith("task=") else SMALL
    with pytest.raises(ConfigError, match=message):
        call(f"checkpoint={trained}", *small, *overrides)
