"""eval.figures: which runs are one arm, the numbers that are drawn, and the files; synthetic runs and real ones."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from figure_runs import CONSTANT, EE, LD, Maker, album_of, four_arms, loss, training_loss
from hydra import compose, initialize_config_module

from conf.strict import ConfigError, register_schema
from eval.figure.album import arms_of
from eval.figure.config import FigureName, FiguresConfig, Spread
from eval.figure.draw import count, draw
from eval.figure.recipe_table import for_csv, markdown
from eval.figure.run import Run
from eval.figure.spread import Band, band
from eval.figure.style import looks
from eval.figures import figures

ROOT = Path(__file__).parent.parent
register_schema("figures", FiguresConfig)


def call(*overrides: str) -> list[Path]:
    with initialize_config_module("conf", version_base="1.3"):
        raw = compose("figures", list(overrides))
    return figures(raw)


def test_a_band_is_the_mean_with_what_was_asked_for() -> None:
    assert band([1.0, 2.0, 6.0], Spread.min_max) == Band(3.0, 1.0, 6.0, 3)
    assert band([1.0, 3.0], Spread.std) == Band(2.0, 2 - math.sqrt(2), 2 + math.sqrt(2), 2)
    assert band([4.0], Spread.std) == Band(4.0, 4.0, 4.0, 1)
    assert Band(0.0, -1.0, 1.0, 2).exp() == (1.0, math.exp(-1), math.e, 2)


def test_seeds_of_four_arms_are_found_beneath_a_folder(make: Maker) -> None:
    runs = four_arms(make)
    arms = arms_of(FiguresConfig(runs=[str(runs)]))
    assert [(arm.name, [run.folder.name for run in arm.runs]) for arm in arms] == [
        ("baseline", ["a0", "a1"]),
        ("LD", ["b0", "b1"]),
        ("EE", ["c0", "c1"]),
        ("LD+EE", ["d0", "d1"]),
    ]
    globs = [str(runs / "[cd]1"), str(runs / "a*"), str(runs / "a0")]
    found = [(arm.name, len(arm.runs)) for arm in arms_of(FiguresConfig(runs=globs))]
    assert found == [("baseline", 2), ("EE", 1), ("LD+EE", 1)], "each run once"


def test_recipes_of_one_kind_are_told_apart_by_what_differs(make: Maker) -> None:
    make("a", LD)
    make("b", CONSTANT)
    make("c", EE, {"layer_dropout.depth_schedule": "constant"})
    make("d", EE, {"train.seed": 1, "layer_dropout.depth_schedule": "linear"})
    arms = arms_of(FiguresConfig(runs=[str(make("e").parent)]))
    assert [(arm.name, len(arm.runs)) for arm in arms] == [
        ("baseline", 1),
        ("LD (p_max=0.2, depth_schedule=exponential)", 1),
        ("LD (p_max=0.0889, depth_schedule=constant)", 1),
        ("EE", 2),  # the schedule of a layer dropout that is off is no difference
    ]


def test_an_option_that_an_older_run_lacks_is_one_that_is_off(make: Maker) -> None:
    make("a", EE)
    make("b", EE, {"train.seed": 1, "early_exit.later_option": False, "early_exit.another": None})
    make("c", EE, {"early_exit.later_option": True})
    make("d", EE, {"train.seed": 1, "early_exit.later_option": True, "early_exit.gradient_cosine_every": 7})
    arms = arms_of(FiguresConfig(runs=[str(make("e").parent)]))
    assert [(arm.name, [run.folder.name for run in arm.runs]) for arm in arms[1:]] == [
        ("EE (later_option=off)", ["a", "b"]),
        ("EE (later_option=True)", ["c", "d"]),
    ]


def test_exits_that_learn_from_the_last_layer_alone_are_exits(make: Maker) -> None:
    silent = EE | {"early_exit.e_scale": 0.0}
    make("a", silent)
    make("b", silent, {"early_exit.distillation": {"strength": 0.3}})
    arms = arms_of(FiguresConfig(runs=[str(make("c", LD).parent)]))
    assert [(arm.name, arm.runs[0].folder.name) for arm in arms] == [("baseline", "a"), ("LD", "c"), ("EE", "b")]


def test_quality_by_exit_is_drawn_with_its_bands(make: Maker) -> None:
    album = album_of(FigureName.by_exit, runs=[four_arms(make)])
    figure = draw(album.drawn[FigureName.by_exit])
    [axis] = figure.axes
    assert axis.get_title() == "Held-out perplexity"
    assert (axis.get_xlabel(), axis.get_yscale()) == ("exit layer", "log")
    assert [line.get_label() for line in axis.lines] == ["baseline", "LD", "EE", "LD+EE"]
    for i, line in enumerate(axis.lines):
        assert list(line.get_xdata()) == [1, 2, 3, 4]
        means = [math.exp(loss(e, 64, 0, i / 4) + 1 / 8) for e in (1, 2, 3, 4)]
        assert list(line.get_ydata()) == pytest.approx(means)
    edges = axis.collections[0].get_paths()[0].vertices
    assert edges[:, 1].max() == pytest.approx(math.exp(loss(1, 64, 1)))
    assert edges[:, 1].min() == pytest.approx(math.exp(loss(4, 64, 0)))
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["baseline", "LD", "EE", "LD+EE"]
    caption = figure.get_supxlabel().replace("\n", " ")
    assert caption == (
        "after 16.4k training tokens (step 64); perplexity of 999 held-out tokens; mean over seeds (n = 2), band:"
        " smallest to largest"
    )


def test_one_colour_dash_and_marker_for_an_arm_in_every_figure() -> None:
    found = looks(["EE", "mine", "LD (p_max=0.1)", "LD (p_max=0.2)", "other"])
    assert len({look.colour for look in found.values()}) == len({look.marker for look in found.values()}) == 5
    assert found["EE"] == looks(["baseline", "LD", "EE"])["EE"]
    assert found["LD (p_max=0.1)"] == looks(["LD"])["LD"]


def test_one_seed_and_another_step(make: Maker) -> None:
    drawn = album_of(FigureName.by_exit, runs=[make("a"), make("b", EE)], step=32).drawn[FigureName.by_exit]
    assert drawn.caption == (
        "after 8.19k training tokens (step 32); perplexity of 64 held-out tokens; one seed per arm"
    )
    found = drawn.panels[0].lines[0].bands[0]
    assert found == Band(*[math.exp(loss(1, 32, 0))] * 3, 1)
    assert not draw(drawn).axes[0].collections, "no band around one run"


def test_arms_of_different_numbers_of_seeds_say_so(make: Maker) -> None:
    runs = [make("a"), make("b", EE), make("c", EE, {"train.seed": 1})]
    drawn = album_of(FigureName.by_exit, runs=runs, spread=Spread.std).drawn[FigureName.by_exit]
    assert drawn.caption.endswith("mean over seeds (n in the legend), band: ± one sample standard deviation")
    texts = [text.get_text() for text in draw(drawn).legends[0].get_texts()]
    assert texts == ["baseline (n = 1)", "EE (n = 2)"]


def test_recipes_side_by_side(make: Maker) -> None:
    album = album_of(FigureName.recipes, runs=[four_arms(make)])
    assert album.recipes is not None
    assert (album.recipes.reference, album.recipes.exits) == ("baseline", [1, 2, 3])
    assert [(row.arm, row.n, row.tokens) for row in album.recipes.rows] == [
        (name, 2, 16384) for name in ("baseline", "LD", "EE", "LD+EE")
    ]
    for i, row in enumerate(album.recipes.rows):
        pairs = [loss(4, 64, seed, i / 4) / loss(4, 64, seed) - 1 for seed in (0, 1)]
        assert row.numbers["loss"].mean == loss(4, 64, 0, i / 4) + 1 / 8
        assert row.numbers["against"] == band(pairs, Spread.min_max), "of the same seed"
        assert row.numbers["perplexity_2"].high == math.exp(loss(2, 64, 1, i / 4))
        assert "agreement_2" not in row.numbers, "not measured"
    lines = markdown(album.recipes).splitlines()
    assert lines[2].startswith("| baseline | 16.4k | 2 | 3.8750 [3.7500, 4.0000] |  | ")
    assert lines[3].split(" | ")[4] == "+6.46% [+6.25%, +6.67%]"
    assert lines[3].split(" | ")[6] == "- / - / -"
    assert lines[-1] == (
        "999 held-out tokens after the last step of each run; mean over seeds (n = 2), [ ]: smallest to largest."
    )


def test_recipes_of_several_lengths_and_what_was_measured_of_exits(make: Maker) -> None:
    runs = [make("a"), make("long", EE, {"train.global_batch_size": 16}), make("b", EE)]
    for run in runs:
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        measured = {"val/agreement/exit_02": 0.5, "val/acceptance/exit_02": 0.25, "val/predicted_speedup": 1.5}
        text = "".join(json.dumps(row | (measured if "val/tokens" in row else {})) + "\n" for row in rows)
        (run / "metrics.jsonl").write_text(text)
    table = album_of(FigureName.recipes, runs=runs).recipes
    assert table is not None
    assert [(row.arm, row.tokens) for row in table.rows] == [("baseline", 16384), ("EE", 16384), ("EE", 32768)]
    assert [row.numbers["against"].mean for row in table.rows] == [0.0, 0.0, 0.0], "with the one length there is"
    longer = markdown(table).splitlines()[4].split(" | ")
    assert longer[6:] == ["- / 50.0% / -", "- / 25.0% / -", "-", "1.50 |"]
    assert {"arm", "loss_low", "agreement_2", "predicted_speedup_high"} <= set(for_csv(table)[0])
    with pytest.raises(ConfigError, match="recipes needs two arms or more; there is only baseline"):
        album_of(FigureName.recipes, runs=runs[:1])


def test_perplexity_over_the_course_of_runs(make: Maker) -> None:
    drawn = album_of(FigureName.over_tokens, runs=[four_arms(make)]).drawn[FigureName.over_tokens]
    assert [panel.title for panel in drawn.panels] == ["Middle layer (exit 2 of 4)", "Last layer (exit 4)"]
    middle, last = draw(drawn).axes
    for axis, exit_layer in ((middle, 2), (last, 4)):
        line = axis.lines[2]
        assert list(line.get_xdata()) == [16 * 256, 32 * 256, 48 * 256], "the last one is of another amount of text"
        means = [math.exp(loss(exit_layer, step, 0, 0.5) + 1 / 8) for step in (16, 32, 48)]
        assert list(line.get_ydata()) == pytest.approx(means)
        assert axis.get_xlabel() == "training tokens"


def test_perplexity_at_the_ends_of_runs_of_several_lengths(make: Maker) -> None:
    for kind, changes in (("a", {}), ("b", EE)):
        for steps in (16, 32):
            for seed in (0, 1):
                folder = make(f"{kind}{steps}-{seed}", changes, {"train.steps": steps, "train.seed": seed}, steps=steps)
    album = album_of(FigureName.over_tokens, FigureName.by_exit, runs=[folder.parent])
    drawn = album.drawn[FigureName.over_tokens]
    assert drawn.caption == "each point is the end of a run; mean over seeds (n = 2), band: smallest to largest"
    line = drawn.panels[1].lines[1]
    assert (line.arm, line.x) == ("EE", [16 * 256, 32 * 256])
    assert line.bands[0] == pytest.approx(
        (math.exp(loss(4, 16, 0) + 1 / 8), math.exp(loss(4, 16, 0)), math.exp(loss(4, 16, 1)), 2)
    )
    assert "after 8.19k training tokens" in album.drawn[FigureName.by_exit].caption, "the longest"


def test_dropout_schedules_against_each_other(make: Maker) -> None:
    for name, changes in (("a", LD | EE), ("b", CONSTANT | EE)):
        for seed in (0, 1):
            folder = make(f"{name}{seed}", changes, {"train.seed": seed, "train.steps": 128}, steps=128)
    make("c", LD, {"train.steps": 128}, steps=128)
    drawn = album_of(FigureName.dropout, runs=[folder.parent]).drawn[FigureName.dropout]
    training, held_out = drawn.panels
    assert [line.arm for line in training.lines] == ["exponential, p 0 to 0.2", "constant, p = 0.0889"]
    line = training.lines[0]
    assert len(line.x) == math.ceil(128 / 3), "at most 60 points"
    assert line.x[0] == 2 * 256
    assert line.bands[0] == Band(training_loss(2, 0) + 0.25, training_loss(2, 0), training_loss(2, 1), 2)
    assert "each point of the loss is the mean of 3 log lines" in drawn.caption
    assert held_out.lines[0].x == [16 * step * 256 for step in range(1, 8)]


def test_files_numbers_and_what_is_left_out(make: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    words = [f"runs=[{four_arms(make)}]", f"output={output}"]
    files = call(*words)
    names = {f"{name}.{kind}" for name in ("by_exit", "over_tokens") for kind in ("svg", "pdf", "png")}
    names |= {"recipes.md", "recipes.csv", "figures.json"}
    assert {file.name for file in files} == names == {file.name for file in output.iterdir()}
    out, err = capsys.readouterr()
    assert "LD+EE, 16.4k tokens: n = 2: " in out
    assert [line.partition(": ")[0] for line in err.splitlines()] == ["left out dropout", "left out speed"]
    assert (output / "by_exit.png").read_bytes().startswith(b"\x89PNG")
    assert (output / "by_exit.pdf").read_bytes().startswith(b"%PDF")
    numbers = json.loads((output / "figures.json").read_text())
    assert numbers["spread"] == "min_max"
    assert [Path(folder).name for folder in numbers["arms"]["LD"]] == ["b0", "b1"]
    point = numbers["points"][0]
    assert (point["figure"], point["panel"], point["arm"], point["at"]) == (
        "by_exit",
        "Held-out perplexity",
        "baseline",
        1,
    )
    assert point["mean"] == pytest.approx(math.exp(loss(1, 64, 0) + 1 / 8))
    before = (output / "by_exit.svg").read_bytes()
    call(*words, "figures=[by_exit]")
    assert (output / "by_exit.svg").read_bytes() == before, "the same numbers give the same file"


def test_arms_by_name(make: Maker, tmp_path: Path) -> None:
    runs = four_arms(make)
    call(f"+arms={{ours:[{runs}/d*],plain model:[{runs}/a0]}}", f"output={tmp_path / 'out'}", "figures=[by_exit]")
    points = json.loads((tmp_path / "out" / "figures.json").read_text())["points"]
    assert {(point["arm"], point["n"]) for point in points} == {("ours", 2), ("plain model", 1)}


def test_a_figure_that_was_asked_for_is_not_left_out(make: Maker, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"speed: no result of self-speculation in the folders of the runs"):
        call(f"runs=[{make('a')}]", "figures=[speed]", f"output={tmp_path / 'out'}")
    with pytest.raises(ConfigError, match=r"figures: dropout needs two arms whose layer_dropout\.depth_schedule"):
        call(f"runs=[{make('b', LD)}]", "figures=[dropout]", f"output={tmp_path / 'out'}")


def test_keys() -> None:
    with pytest.raises(ConfigError, match=r"runs: give run folders"):
        call()
    with pytest.raises(ConfigError, match=r"runs: leave one of the two out"):
        call("runs=[a]", "+arms={x:[b]}")
    with pytest.raises(ConfigError, match=r"arms\.x: names no run"):
        call("+arms.x=[]")
    with pytest.raises(ConfigError, match=r"step=0: must be at least 1"):
        call("runs=[a]", "step=0")


@pytest.mark.parametrize(
    ("tokens", "text"), [(950, "950"), (16_384, "16.4k"), (2.5e6, "2.5M"), (26.2e9, "26.2B"), (1e12, "1T"), (0, "0")]
)
def test_numbers_of_tokens(tokens: float, text: str) -> None:
    assert count(tokens) == text


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, tiny_run: list[str]) -> Path:
    """What a --multirun of two arms with two seeds leaves."""
    folder = tmp_path_factory.mktemp("figures") / "sweep"
    words = [*tiny_run, "train.steps=4", "validation.every=2", "checkpoint.every=4", "early_exit=none,all"]
    words += ["train.seed=0,1", f"run_dir={folder}"]
    done = subprocess.run(
        [sys.executable, "-m", "train.pretrain", "--multirun", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_runs_of_a_sweep(sweep: Path, tmp_path: Path) -> None:
    call(f"runs=[{sweep}]", f"output={tmp_path}")
    numbers = json.loads((tmp_path / "figures.json").read_text())
    assert {arm: len(its) for arm, its in numbers["arms"].items()} == {"baseline": 2, "EE": 2}
    last = {
        name: Run.read(sweep / f"early_exit=all,train.seed={seed}").validation(None).losses[4]
        for seed, name in enumerate("ab")
    }
    [point] = [p for p in numbers["points"] if (p["figure"], p["arm"], p["at"]) == ("by_exit", "EE", 4)]
    assert point["mean"] == pytest.approx(math.exp(sum(last.values()) / 2))
    assert (point["low"], point["high"]) == pytest.approx((math.exp(min(last.values())), math.exp(max(last.values()))))
    assert point["n"] == 2
    columns = (tmp_path / "recipes.csv").read_text().splitlines()[0].split(",")
    assert {"agreement_2", "acceptance_3_low", "predicted_speedup_greedy"} <= set(columns)
