"""W&B's files and what its SDK sends: every step once, with its values, whatever kills the run in between."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from conftest import compose_config, run_ranks
from PIL import Image
from wandb.proto.wandb_internal_pb2 import Record
from wandb_server import Server

from conf.metrics_file import METRICS, read_metrics
from train import run_dir
from train.errors import PREEMPTED
from train.monitoring import wandb_sink
from train.monitoring.sinks import open_sinks
from train.monitoring.wandb_files import cut_back, files_of, records, row_of

ROOT = Path(__file__).parent.parent
N_EXITS = 8
REVISION = "0123456789" * 4


def row(step: int) -> dict[str, float]:
    """Of training, with values that say their step."""
    exits = {f"train/loss/exit_{e:02d}": step + e / 100 for e in range(1, N_EXITS + 1)}
    return exits | {"train/objective": 1 / step, "train/lr": step / 1000, "train/layer_grad_norm/rest": step / 7}


def validation(step: int) -> dict[str, float]:
    exits = range(1, N_EXITS + 1)
    ppl = {f"val/ppl/exit_{e:02d}": 1000.0 / (step + e) for e in exits}
    other = {f"val/{key}/exit_{e:02d}": e / N_EXITS for e in exits for key in ("agreement", "acceptance", "bpb")}
    return ppl | other | {"val/tokens": 256.0, "train/dropout/layer_02": 0.1}


def logged(
    rank: int, folder: Path, first: int, last: int, end: str, options: list[str], environment: dict[str, str]
) -> None:
    """What a training does with its sinks, with a validation each 50 steps; ends as `end` says."""
    os.environ |= environment
    folder.mkdir(exist_ok=True)
    run_dir.cut_logs(folder, first)
    with patch.object(wandb_sink, "code_revision", lambda: REVISION):
        config = compose_config(f"run_dir={folder}", "wandb.mode=offline", *options)
        jsonl, wandb = open_sinks(config, first)
    assert isinstance(wandb, wandb_sink.WandbSink)
    (folder / "has_until").write_text(str(wandb._has_until))
    for step in range(first + 1, last + 1):
        for sink in (jsonl, wandb):
            sink.write(step, row(step))
            if step % 50 == 0:
                sink.write(step, validation(step))
        if step % 50 == 0:
            Image.new("RGB", (3, 2), (step, 0, 0)).save(picture := folder / "picture.png")
            wandb.show(read_metrics(folder / METRICS), picture, last=step == last)
        if end == "its process ends" and step == last - 10:
            os.kill(wandb._processes[0], signal.SIGKILL)
    if end == "killed":
        os.kill(wandb._processes[0], signal.SIGKILL)
        os._exit(0)
    wandb.close(PREEMPTED if end == "preempted" else 0)
    os._exit(0)


def train(folder: Path, first: int, last: int, end: str = "done", *options: str, **environment: str) -> None:
    run_ranks(logged, 1, folder, first, last, end, list(options), environment)


def of_kind(path: Path, kind: str) -> list[Any]:
    every = [Record.FromString(content) for _, content in records(path)]
    return [getattr(record, kind) for record in every if record.WhichOneof("record_type") == kind]


def files(folder: Path) -> list[Path]:
    return files_of(folder / "wandb", (folder / "wandb_id").read_text())


def histories(path: Path) -> list[dict[str, Any]]:
    return [row_of(Record.FromString(content)) for _, content in records(path) if row_of(Record.FromString(content))]


def logged_twice_or_never(rows: list[dict[str, Any]], last: int) -> list[int]:
    steps = [row["_step"] for row in rows]
    return [step for step in range(1, last + 1) if steps.count(step) != 1]


def sync(folder: Path, server: Server) -> subprocess.CompletedProcess[str]:
    words = ["wandb", "sync", *(str(path.parent) for path in files(folder))]
    command = [sys.executable, "-m", *words]
    environment = os.environ | server.environment
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_a_kill_and_a_continuation_leave_every_step_once(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(folder, 0, 160, "killed")
    [before] = files(folder)
    whole = [offset for offset, _ in records(before)]
    assert before.stat().st_size > whole[-1], "a kill leaves a record unfinished"
    assert histories(before)[-1]["_step"] > 100
    train(folder, 100, 170)
    first, second = files(folder)
    rows = [*histories(first), *histories(second)]
    assert [r["_step"] for r in rows] == list(range(1, 171))
    assert [r["step"] for r in rows] == list(range(1, 171))
    assert histories(first)[-1]["_step"] == 100
    assert first.stat().st_size == [offset for offset, _ in records(first)][-1]
    for r in rows:
        expected = row(r["step"]) | (validation(r["step"]) if r["step"] % 50 == 0 else {})
        assert {key: r[key] for key in expected} == expected
    assert [r.exit_code for r in of_kind(second, "exit")] == [0]
    with Server() as server:
        done = sync(folder, server)
    assert done.returncode == 0, done.stderr
    [run] = server.runs.values()
    assert not logged_twice_or_never(run.history, 170)
    assert [r["train/objective"] for r in run.history] == [1 / step for step in range(1, 171)]
    assert run.exit_codes[-1] == 0


def test_what_a_run_says_of_itself(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ["wandb.group=seeds", "wandb.tags=[demo,1.5b]", "wandb.name=the run", "wandb.project=depth"]
    train(folder, 0, 100, "preempted", *words)
    train(folder, 100, 101, "done", *words)
    first, second = files(folder)
    [run] = of_kind(first, "run")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert (run.run_group, list(run.tags), run.display_name, run.project) == (
        "seeds", ["demo", "1.5b"], "the run", "depth",
    )  # fmt: skip
    assert config["revision"] == run.git.commit == REVISION
    assert config["train"]["seq_len"] == 256
    assert of_kind(first, "exit")[0].exit_code == PREEMPTED
    codes = [[a for a in of_kind(path, "artifact") if a.type == "code"] for path in (first, second)]
    assert [len(code) for code in codes] == [1, 0], "a revision's code is logged once"
    names = {entry.path for entry in codes[0][0].manifest.contents}
    assert {"train/pretrain.py", "conf/pretrain.yaml", "slurm/pretrain.sh"} <= names
    assert all(name.partition("/")[0] in wandb_sink.COPIED for name in names)
    staged = {Path(entry.local_path).parent for entry in codes[0][0].manifest.contents}
    assert staged == {folder / "wandb" / "artifacts" / "staging"}, "the run folder has all there is to be synced"
    metrics = {metric.name: metric for metric in of_kind(first, "metric")}
    assert not any(metric.glob_name for metric in metrics.values())
    drawn = {name for name, metric in metrics.items() if not metric.options.hidden}
    assert drawn == {"train/objective", "train/lr", "val/tokens"}
    assert all(metric.step_metric == "step" for name, metric in metrics.items() if name != "step")
    assert metrics["val/acceptance/exit_03"].options.hidden


def test_all_exits_are_in_one_chart(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(folder, 0, 100)
    [path] = files(folder)
    config = [item for record in of_kind(path, "config") for item in record.update]
    charts = {item.nested_key[2] for item in config if list(item.nested_key[:2]) == ["_wandb", "visualize"]}
    assert charts == {
        *(f"by_exit/{key}_over_{what}" for key in ("ppl", "agreement", "acceptance") for what in ("steps", "depth")),
        "by_exit/train_loss_over_steps",
        "by_layer/dropout_over_steps",
    }

    def table(name: str) -> list[tuple[str, float, float]]:
        [file] = path.parent.glob(f"files/media/table/*/by_exit/{name}_table_100_*.table.json")
        content = json.loads(file.read_text())
        columns = [content["columns"].index(key) for key in ("lineKey", "step", "lineVal")]
        return sorted(tuple(line[i] for i in columns) for line in content["data"])

    names = [f"exit_{e:02d}" for e in range(1, N_EXITS + 1)]
    assert table("ppl_over_steps") == sorted(
        (name, step, validation(step)[f"val/ppl/{name}"]) for name in names for step in (50, 100)
    )
    assert table("acceptance_over_depth") == sorted(
        (f"step {step}", e, e / N_EXITS) for e in range(1, N_EXITS + 1) for step in (50, 100)
    )
    losses = table("train_loss_over_steps")
    assert len(losses) == 50 * N_EXITS, "thinned"
    assert {step for _, step, _ in losses} >= {1, 100}
    assert all(value == step + int(name[-2:]) / 100 for name, step, value in losses)
    pictures = [r["by_exit/perplexity/path"] for r in histories(path) if "by_exit/perplexity/path" in r]
    assert len(pictures) == 2
    with Image.open(path.parent / "files" / pictures[-1]) as picture:
        assert (picture.size, picture.getpixel((0, 0))) == ((3, 2), (100, 0, 0))


def test_what_its_ended_process_has_not_taken_follows(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(folder, 0, 60, "its process ends")
    train(folder, 60, 61)
    rows = [r for path in files(folder) for r in histories(path)]
    assert [r["_step"] for r in rows] == list(range(1, 62))
    assert all(row(r["step"]).items() <= r.items() for r in rows)


def test_rows_that_are_on_the_server_are_not_sent_again(tmp_path: Path) -> None:
    """Offline, one cannot know whether it would take them back."""
    folder = tmp_path / "run"
    train(folder, 0, 116)
    with Server() as server:
        assert sync(folder, server).returncode == 0
        train(folder, 100, 130)
        assert sync(folder, server).returncode == 0
        [run] = server.runs.values()
        assert not logged_twice_or_never(run.history, 130)


@pytest.mark.slow
@pytest.mark.parametrize("can_rewind", [True, False])
def test_a_run_that_is_online(tmp_path: Path, can_rewind: bool) -> None:
    """Rewound to the checkpoint, if the server can; otherwise it goes on where its rows end."""
    folder = tmp_path / "run"
    with Server(can_rewind=can_rewind) as server:
        train(folder, 0, 58, "preempted", "wandb.mode=online", "wandb.group=g", **server.environment)
        train(folder, 50, 70, "done", "wandb.mode=online", "wandb.group=g", **server.environment)
    [run] = server.runs.values()
    assert not logged_twice_or_never(run.history, 70)
    rewound = [variables for name, variables in server.operations if name == "RewindRun"]
    assert [variables["metricValue"] for variables in rewound] == [50]
    assert run.exit_codes == [PREEMPTED, 0]
    # What W&B has is not offered to it: it would warn of each row.
    assert (folder / "has_until").read_text() == ("50" if can_rewind else "58")
    assert (run.sent["groupName"], run.config["revision"]) == ("g", REVISION)


def test_files_without_a_row(tmp_path: Path) -> None:
    """Of a process that was killed before W&B had written anything, on which `wandb sync` would stop."""
    folder = tmp_path / "wandb"
    for name, content in (("20260101_000000", b""), ("20260101_000001", b":W&B&B\xe1\xbe\x00")):
        (folder / f"offline-run-{name}-0123abcd").mkdir(parents=True)
        (folder / f"offline-run-{name}-0123abcd" / "run-0123abcd.wandb").write_bytes(content)
    taken = cut_back(folder, "0123abcd", 10)
    assert taken is not None
    assert (taken.step, taken.later) == (0, 0)
    assert not list(folder.iterdir())
    assert cut_back(folder, "0123abcd", 10) is None


def test_an_evaluation_beside_a_training_that_goes_on(tmp_path: Path) -> None:
    """It may be writing at that moment: its file is none of those that are cut."""
    folder = tmp_path / "run"
    train(folder, 0, 20)
    (folder / "config.yaml").write_text("wandb: {mode: offline, project: layerskip, entity: null}\n")
    (result := tmp_path / "bench.json").write_text('{"speed": 2.5}')
    words = [sys.executable, "-m", "train.log_evaluation", str(folder), "10", str(result)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert "1 numbers of step 10 logged" in done.stdout, done.stderr
    [evaluation] = files_of(folder / "evaluations" / "wandb", (folder / "wandb_id").read_text())
    content = evaluation.read_bytes()
    train(folder, 10, 12)
    assert evaluation.read_bytes() == content
    [row_there] = histories(evaluation)
    assert (row_there["eval/bench/speed"], row_there["eval/step"]) == (2.5, 10)
