"""eval.figures with results of decoding and of tasks, and what it refuses."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from figure_runs import EE, LD, Maker, album_of, write_sweep

from conf.strict import ConfigError
from eval.figure.config import FigureName
from eval.figure.draw import draw
from eval.figure.spread import Band


def test_speed_of_seeds_as_a_picture_and_tables(make: Maker, tmp_path: Path) -> None:
    for seed, plus in ((0, 0.0), (1, 0.5)):
        write_sweep(make(f"d{seed}", LD | EE, {"train.seed": seed}), plus=plus)
    write_sweep(make("c_0", EE), "benchmark.json")
    write_sweep(tmp_path / "runs" / "c_0", "benchmark_step-16.json", plus=9)  # of an older checkpoint
    album = album_of(FigureName.speed, runs=[tmp_path / "runs"])
    drawn = album.drawn[FigureName.speed]
    figure = draw(drawn)
    [axis] = figure.axes
    assert axis.get_title() == "cnn_dm"
    ours = drawn.panels[0].lines[1]
    assert (ours.arm, list(ours.x), ours.notes) == ("LD+EE", [1, 2], ["4", "4"])
    assert ours.bands == [Band(1.75, 1.5, 2.0, 2), Band(2.0, 1.75, 2.25, 2)]
    alone = drawn.panels[0].lines[0].bands[0]
    assert alone == pytest.approx((1.5, 1.4, 1.6, 1)), "of one seed the interval over samples"
    assert [text.get_text() for text in axis.texts] == ["4"] * 4
    files = {file.name: file for file in album.save(tmp_path)}
    table = files["speed.md"].read_text()
    assert "| LD+EE | self-speculative | 1 | 4 | 0.100 | 50.0% | 175 [150, 200] |" in table
    assert "| EE | self-speculative | 2 | 4 | 0.100 [0.050, 0.200] |" in table
    assert "| 2 | 2 |" not in table, "the fastest d alone"
    assert "8 samples, seed 0; H200, bfloat16" in table
    latex = files["speed.tex"].read_text()
    assert latex.count(r"\begin{tabular}{llrrrrrrrrr}") == latex.count(r"\end{tabular}") == 1
    assert r"50.0\%" in latex
    assert r"cnn\_dm" in latex
    rows = list(csv.DictReader(files["speed.csv"].open()))
    assert len(rows) == 12, "every setting"
    [one] = [r for r in rows if (r["arm"], r["exit_layer"], r["num_speculations"]) == ("LD+EE", "2", "2")]
    assert (one["speedup"], one["speedup_low"], one["n"]) == ("1.875", "1.625", "2")


def test_metrics_of_tasks_stand_beside_perplexity(make: Maker) -> None:
    for seed in (0, 1):
        scores = [
            {
                "task": "arc",
                "metric": metric,
                "filter": "none",
                "exit_layer": e,
                "value": e / 8 + seed / 4,
                "stderr": 0.1,
            }
            | {"higher_is_better": True, "num_fewshot": 0, "n_samples": 5, "checkpoint": "x"}
            for metric in ("acc", "acc_norm")
            for e in (2, 4)
        ]
        (make(f"c{seed}", EE, {"train.seed": seed}) / "exits.json").write_text(json.dumps(scores))
    drawn = album_of(FigureName.by_exit, runs=[make("a").parent]).drawn[FigureName.by_exit]
    assert [(panel.title, panel.label) for panel in drawn.panels[1:]] == [("arc", "acc"), ("arc", "acc_norm")]
    [line] = drawn.panels[1].lines
    assert (line.arm, line.x, line.bands[0]) == ("EE", [2, 4], Band(0.375, 0.25, 0.5, 2))
    assert len(draw(drawn).axes) == 3


NOT_COMPARABLE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another model": ({"model.dim": 16}, {}, r"model\.dim: 8 in .*a, 16 in .*b; their numbers cannot be compared"),
    "other text": ({}, {"digests": {"text": "e"}}, r"data\.sources\.text's text: d in .*a, e in "),
    "another tokenizer": ({}, {"tokenizer": "u"}, r"data\.tokenizer: t in .*a, u in "),
    "another validation": ({"validation.tokens": 128}, {}, r"validation\.tokens: 64 in .*a, 128 in "),
    "another mixture": (
        {"data.sources": {"text": {"path": "a", "format": "text", "weight": 2.0}}},
        {},
        r"data\.sources\.text\.weight: 1\.0 in ",
    ),
}


@pytest.mark.parametrize("case", NOT_COMPARABLE)
def test_runs_that_cannot_be_compared(make: Maker, case: str) -> None:
    changes, corpus, message = NOT_COMPARABLE[case]
    runs = [make("a"), make("b", EE, changes, corpus=corpus)]
    with pytest.raises(ConfigError, match=message):
        album_of(runs=runs)


def test_what_is_no_run_or_has_no_validation(make: Maker, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"runs: .*nothing is nothing that exists"):
        album_of(runs=[tmp_path / "nothing"])
    with pytest.raises(ConfigError, match=r"runs: .* holds no run \(a folder with config\.yaml\)"):
        album_of(runs=[tmp_path])
    young = make("a", steps=8)
    with pytest.raises(ConfigError, match=r"a/metrics\.jsonl: has no validation; wait for the first one"):
        album_of(FigureName.by_exit, runs=[young])
    unfinished = make("b", EE, steps=40)
    with pytest.raises(ConfigError, match=r"b: has come to step 32 of 64; wait for it, leave it out, or set step=32"):
        album_of(FigureName.by_exit, runs=[unfinished])
    with pytest.raises(ConfigError, match=r"step=48: .*b has no validation of that step; its last one is of step 32"):
        album_of(FigureName.by_exit, runs=[unfinished], step=48)
    (unfinished / "corpus.json").write_text("{")
    with pytest.raises(ConfigError, match=r"b/corpus\.json: damaged"):
        album_of(runs=[unfinished])
    (unfinished / "config.yaml").write_text("model: {dim: 4}\n")
    (unfinished / "corpus.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"b/config\.yaml: has no model\.n_layers"):
        album_of(runs=[unfinished])


def test_seeds_that_are_none(make: Maker) -> None:
    one, same, other = make("a"), make("b"), make("c", {"train.seed": 1, "optimizer.lr": 0.1})
    with pytest.raises(ConfigError, match=r"runs: .*a and .*b have the same train\.seed; leave one out"):
        album_of(runs=[one, same])
    with pytest.raises(ConfigError, match=r"arms\.x: .*a and .*c differ in optimizer\.lr; make two arms of them"):
        album_of(arms={"x": [str(one), str(other)]})
    with pytest.raises(ConfigError, match=r"arms\.y: .*a is in arms\.x as well; a run is of one arm"):
        album_of(arms={"x": [str(one)], "y": [str(one)]})


def test_results_that_cannot_be_compared_or_are_of_no_run(make: Maker, tmp_path: Path) -> None:
    runs = [make("a"), make("b", EE)]
    write_sweep(runs[0])
    write_sweep(runs[1], hardware="H100")
    with pytest.raises(ConfigError, match=r"speed: cnn_dm has hardware=H100 in .*b/sweep\.json and H200 in .*a/sweep"):
        album_of(FigureName.speed, runs=runs)
    elsewhere = write_sweep(tmp_path, "x.json", checkpoint=str(runs[1] / "checkpoint" / "step-8"))
    album = album_of(FigureName.speed, runs=runs, speed=[elsewhere])
    assert {r.arm for r in album.speed} == {"EE"}, "by the checkpoint that it names"
    stray = write_sweep(tmp_path, "y.json", checkpoint="/somewhere")
    with pytest.raises(ConfigError, match=r"speed: .*y\.json is of /somewhere, which is none of the runs"):
        album_of(FigureName.speed, runs=runs, speed=[stray])
    stray.write_text("[1]")
    with pytest.raises(ConfigError, match=r"y\.json: no rows with checkpoint"):
        album_of(FigureName.speed, runs=runs, speed=[stray])
    with pytest.raises(ConfigError, match=r"speed: .* are both of cnn_dm and .*b; leave one out"):
        album_of(FigureName.speed, runs=runs, speed=[elsewhere, runs[1] / "sweep.json"])
