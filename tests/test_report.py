"""Reading run folders for their page: running, killed, damaged, long, of other depths; and the command's errors."""

import json
import math
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import compose_config
from hydra import compose, initialize_config_module
from run_folders import rows_of, write_run
from test_lens import data_of

from conf.strict import ConfigError, register_schema
from train.cost.schedule_maps import schedule_maps
from train.recipe.dropout_schedule import dropout_probability
from train.recipe.exit_weights import exit_weights
from train.report import report
from train.report_page.config import ReportConfig
from train.report_page.content import content_of
from train.report_page.document import document
from train.report_page.run_names import default_output, names_of
from train.report_page.run_record import RunRecord
from train.report_page.schedules import SECTIONS
from train.report_page.thinned import thinned

ROOT = Path(__file__).parent.parent
register_schema("report", ReportConfig)


def read(*folders: Path) -> dict[str, Any]:
    """What the page shows of some runs; JSON without NaN, as the page needs it."""
    records = [RunRecord(folder, folder.name) for folder in folders]
    for record in records:
        record.read()
    content = content_of(records)
    return json.loads(json.dumps(content, allow_nan=False))  # type: ignore[no-any-return]


def run_command(*overrides: str) -> None:
    with initialize_config_module("conf", version_base="1.3"):
        report(compose("report", list(overrides)))


def test_numbers_of_a_run_are_those_of_its_metrics(tmp_path: Path) -> None:
    (run,) = read(write_run(tmp_path / "run"))["runs"]
    rows = [row for step in range(1, 41) for row in rows_of(step, 4)]
    steps, values = run["series"]["train/grad_norm"]
    assert steps == list(range(1, 41))
    assert values == pytest.approx([row["train/grad_norm"] for row in rows if "train/lr" in row], rel=1e-4)
    assert run["validations"]["steps"] == [10, 20, 30, 40]
    assert run["validations"]["exits"] == [1, 2, 3, 4]
    last = [rows[-1][f"val/ppl/exit_{e:02d}"] for e in range(1, 5)]
    assert run["validations"]["metrics"]["val/ppl"][-1] == pytest.approx(last, rel=1e-4)
    assert (run["step"], run["total_steps"], run["n_layers"], run["notes"]) == (40, 40, 4, [])


def test_every_extreme_of_a_long_series_is_kept() -> None:
    draw = random.Random(0)
    steps = list(range(1, 100_001))
    values = [draw.gauss() for _ in steps]
    values[31_415], values[77_777], values[12] = 50.0, -40.0, math.nan
    x, y = thinned(steps, values, 400)
    assert len(x) <= 402
    assert x == sorted(set(x))
    assert (x[0], x[-1]) == (1, 100_000)
    points = dict(zip(x, y, strict=True))
    assert (points[31_416], points[77_778]) == (50.0, -40.0)
    assert all(values[at - 1] == value for at, value in points.items())
    assert thinned([], [], 400) == ([], [])
    assert thinned([3, 5], [1.0, math.inf], 400) == ([3], [1.0])


def test_a_page_of_long_runs_stays_small(tmp_path: Path) -> None:
    records = [RunRecord(write_run(tmp_path / "run", n_layers=32, steps=6000), "run")] * 3
    records[0].read()
    assert len(document(records, None)) < 1_000_000
    for run in content_of(records)["runs"]:
        assert (run["validations"]["steps"][0], run["validations"]["steps"][-1]) == (10, 6000)


def test_a_run_that_goes_on_is_read_where_the_last_reading_ended(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", done=25)
    path = folder / "metrics.jsonl"
    record = RunRecord(folder, "run")
    with path.open("a") as stream:
        stream.write(half := json.dumps(rows_of(26, 4)[0])[:40])
    record.read()
    assert record.metrics.last_step == 25
    assert record.notes == [], "half a line is none that is damaged"
    with path.open("a") as stream:
        stream.write(json.dumps(rows_of(26, 4)[0])[len(half) :] + "\n")
    record.read()
    assert record.metrics.last_step == 26
    assert list(record.metrics.series["train/lr"][0]) == list(range(1, 27)), "no row twice"
    kept = path.read_bytes().split(b"\n")[:12]
    (folder / "new").write_bytes(b"\n".join(kept) + b"\n")
    os.replace(folder / "new", path)  # as a continued run cuts it back
    record.read()
    assert list(record.metrics.series["train/lr"][0]) == list(range(1, 12))


def test_what_is_missing_or_damaged_is_told(tmp_path: Path) -> None:
    early = write_run(tmp_path / "early", done=5)
    (no_rows := write_run(tmp_path / "no_rows") / "metrics.jsonl").unlink()
    no_config = write_run(tmp_path / "no_config")
    (no_config / "config.yaml").unlink()
    damaged = write_run(tmp_path / "damaged")
    (damaged / "config.yaml").write_text("a: [1")
    lines = (damaged / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (damaged / "metrics.jsonl").write_bytes(b"".join([*lines[:3], b"\xff\xfe\n", b'{"step": NaN}\n', *lines[3:]]))
    (damaged / "starts.jsonl").write_text("[]\n" + '{"from_step": 0}\n{"from')
    runs = {run["name"]: run for run in read(early, no_rows.parent, no_config, damaged)["runs"]}
    assert any("no validation yet" in note for note in runs["early"]["notes"])
    assert runs["early"]["series"]["train/lr"][0] == [1, 2, 3, 4, 5]
    assert any("metrics.jsonl: has no rows yet" in note for note in runs["no_rows"]["notes"])
    assert runs["no_rows"]["schedules"]
    assert any("config.yaml: missing" in note for note in runs["no_config"]["notes"])
    assert runs["no_config"]["validations"]["exits"] == [1, 2, 3, 4]
    told = "\n".join(runs["damaged"]["notes"])
    assert "config.yaml: cannot be read" in told
    assert "metrics.jsonl: 2 damaged lines" in told
    assert "starts.jsonl: 1 damaged lines" in told
    assert runs["damaged"]["step"] == 40


def test_how_a_run_stands(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")

    def state() -> str:
        return read(folder)["runs"][0]["state"]  # type: ignore[no-any-return]

    assert state() == "killed"
    (folder / ".lock").write_text(f"pid {os.getpid()} on {os.uname().nodename}")
    assert state().startswith("running (pid")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (folder / ".lock").write_text(f"pid {dead.pid} on {os.uname().nodename}")
    assert state() == "killed", "it has left its lock"
    (folder / ".lock").write_text("pid 1 on another-node")
    assert state() == "running (pid 1 on another-node)"
    for status, told in ((0, "finished"), (75, "stopped, can continue"), (1, "error, exit status 1")):
        (folder / "exit_status").write_text(f"{status}\n")
        assert state() == told


def test_events(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    with (folder / "starts.jsonl").open("a") as stream:
        stream.write(json.dumps({"from_step": 20, "host": "node18", "ranks": 4, "revision": "b" * 40}) + "\n")
    (folder / "bad_steps.jsonl").write_text(json.dumps({"step": 13, "why": "the loss is not finite"}) + "\n")
    for step in (20, 40):
        (folder / "checkpoint" / f"step-{step}").mkdir(parents=True)
        (folder / "checkpoint" / f"step-{step}" / ".metadata").touch()
    (folder / "checkpoint" / "step-30.partial").mkdir()
    (run,) = read(folder)["runs"]
    events = [(event["step"], event["kind"]) for event in run["events"]]
    assert events == [(0, "start"), (13, "skipped"), (20, "restart"), (20, "checkpoint"), (40, "checkpoint")]
    assert "node18" in run["events"][2]["what"]
    assert (run["restarts"], run["skipped"]) == (1, 1)


def test_schedules_are_those_of_the_recipe(tmp_path: Path) -> None:
    options = ["layer_dropout=exp_scratch", "early_exit=rotational", "early_exit.rotation_period=3"]
    folder = write_run(tmp_path / "run", *options, n_layers=6, steps=5000, done=10)
    record = RunRecord(folder, "run")
    record.read()
    dropout, mean, first = read(folder)["runs"][0]["schedules"]
    typed = {name: section(**record.section(name)) for name, section in SECTIONS.items()}
    last = [dropout_probability(typed["layer_dropout"], layer, 4999, 6, 5000) for layer in range(6)]
    assert dropout["columns"][-1] == pytest.approx(last, abs=0.01)
    assert dropout["columns"][0] == pytest.approx([0.0] * 6, abs=0.01)
    for step in (0, 1, 2, 63):
        weights = exit_weights(typed["early_exit"], step, 6, 5000)
        assert first["columns"][step] == pytest.approx([weights.get(layer, 0.0) for layer in range(6)], rel=1e-3)
    assert all(column == mean["columns"][0] for column in mean["columns"]), "whole rotations: no interference"
    assert sum(mean["columns"][0]) == pytest.approx(1, rel=1e-3)


def test_columns_of_a_short_run_have_whole_rotations() -> None:
    config = compose_config("model.n_layers=16", "early_exit=rotational", "early_exit.e_scale=0.2", "train.steps=400")
    columns = schedule_maps(config)[1].columns
    assert len(columns) > 20
    assert all(column == pytest.approx(columns[0]) for column in columns)


def test_runs_of_different_depth_and_configuration(tmp_path: Path) -> None:
    content = read(
        write_run(tmp_path / "a", n_layers=4), write_run(tmp_path / "b", "layer_dropout.p_max=0.1", n_layers=8, done=20)
    )
    different = {row[0]: row[1:] for row in content["different"]}
    assert different["layer_dropout.p_max"] == ["0.0", "0.1"]
    assert different["model.n_layers"] == ["4", "8"]
    assert "train.seq_len" not in different
    assert "train.seq_len" in {row[0] for row in content["same"]}
    assert [run["validations"]["exits"][-1] for run in content["runs"]] == [4, 8]


def test_a_schedule_of_ones_own_that_is_not_here(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("time_schedule: constant", "time_schedule: not_here.mine:f"))
    (run,) = read(folder)["runs"]
    assert run["schedules"] == []
    assert any("layer_dropout.time_schedule=not_here.mine:f: no module not_here" in note for note in run["notes"])


def test_names_and_the_page_s_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / "x" / "run", tmp_path / "y" / "run"]
    assert names_of(folders) == ["x/run", "y/run"]
    assert names_of([tmp_path / "x" / "a", tmp_path / "y" / "b"]) == ["a", "b"]
    monkeypatch.chdir(tmp_path)
    assert default_output([Path("x/run")]) == Path("x/run/report.html")
    assert default_output(folders) == Path("report.html")
    assert default_output([Path("/somewhere/run")]) == Path("/somewhere/run/report.html")


def test_the_command_takes_one_run_several_and_patterns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "seed-1", "seed-2"):
        write_run(tmp_path / name)
    (tmp_path / "seed-notes").mkdir()
    run_command(f"run_dir={tmp_path / 'a'}")
    assert Path(capsys.readouterr().out.strip()).samefile(tmp_path / "a" / "report.html")
    run_command(f"runs=[{tmp_path}/seed-?,{tmp_path}]", f"output={tmp_path}/all.html")
    assert [run["name"] for run in data_of(tmp_path / "all.html")["runs"]] == ["seed-1", "seed-2", "a"]
    for overrides, message in (
        ([], "run_dir: missing"),
        ([f"run_dir={tmp_path}/a", f"runs=[{tmp_path}/a]"], "run_dir and runs: give one of them"),
        ([f"run_dir={tmp_path}/none"], "is no folder; give the run_dir"),
        ([f"run_dir={tmp_path}"], r"holds several runs; 'runs=\["),
        ([f"run_dir={tmp_path}/seed-notes"], "holds no run"),
        ([f"runs=[{tmp_path}/b*]"], "is nothing that exists"),
        ([f"run_dir={tmp_path}/a", "output=a.txt"], r"output=a.txt: must end in .html"),
        ([f"run_dir={tmp_path}/a", "refresh=0"], "refresh=0.0: must be at least 1"),
        ([f"run_dir={tmp_path}/a", "output=/proc/a.html"], "output=/proc/a.html"),
    ):
        with pytest.raises(ConfigError, match=message):
            run_command(*overrides)
    monkeypatch.setattr(sys, "argv", ["report", f"run_dir={tmp_path}/a", f"run_dir={tmp_path}/b"])
    with pytest.raises(ConfigError, match=r"run_dir: given more than once; several runs are 'runs="):
        run_command(f"run_dir={tmp_path}/a")


def test_refresh_writes_the_page_until_the_run_has_finished(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", done=20)
    command = [sys.executable, "-m", "train.report", f"run_dir={folder}", "refresh=1"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    page = folder / "report.html"
    try:
        assert process.stdout
        assert process.stdout.readline().strip().endswith("report.html")
        before = data_of(page)
        assert (before["refresh"], before["runs"][0]["step"]) == (1.0, 20)
        with (folder / "metrics.jsonl").open("a") as stream:
            stream.write("".join(json.dumps(row) + "\n" for row in rows_of(30, 4)))
        ends = time.monotonic() + 60
        while data_of(page)["runs"][0]["step"] == 20 and time.monotonic() < ends:
            time.sleep(0.1)
        assert data_of(page)["runs"][0]["step"] == 30
        (folder / "exit_status").write_text("0\n")
        assert process.wait(60) == 0
        assert data_of(page)["refresh"] is None, "the last page does not reload itself"
    finally:
        process.kill()
