"""TensorBoard's files: the numbers of metrics.jsonl, each step once however often the run was killed."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import compose_config, run_ranks
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training import train

from conf.strict import ConfigError
from train.monitoring import tensorboard
from train.monitoring.tensorboard import check_tensorboard
from train.run_dir import read_metrics

ROOT = Path(__file__).parent.parent


def killed_and_continued(rank: int, folder: Path, overrides: list[str]) -> None:
    train(rank, folder, overrides, kill_in_step=2)  # before the first checkpoint
    train(rank, folder, overrides, kill_in_step=6)  # two steps after one
    train(rank, folder, overrides)


def test_a_continued_run_has_every_step_once(tmp_path: Path, tiny_run: list[str]) -> None:
    options = ["tensorboard=true", "train.steps=8", "checkpoint.every=3", "validation.every=4", "early_exit=all"]
    run_ranks(killed_and_continued, 1, tmp_path / "run", [*tiny_run, *options])
    files = list((tmp_path / "run" / "tensorboard").iterdir())
    assert len(files) == 3, "one for each start"
    found = EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"scalars": 0})
    found.Reload()
    expected: dict[str, list[tuple[int, float]]] = {}
    for row in read_metrics(tmp_path / "run" / "metrics.jsonl"):
        for key, value in row.items():
            if key != "step":
                expected.setdefault(key, []).append((row["step"], value))
    assert [step for step, _ in expected["train/objective"]] == list(range(1, 9))
    assert [step for step, _ in expected["val/ppl/exit_04"]] == [4, 8]
    assert set(found.Tags()["scalars"]) == expected.keys()
    for key, points in expected.items():
        events = found.Scalars(key)
        assert [event.step for event in events] == [step for step, _ in points], key
        assert [event.value for event in events] == pytest.approx([value for _, value in points], rel=1e-6), key
    layout = found.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    assert b"val/ppl/exit_.*" in layout, "all exits in one chart"


def test_a_missing_package_is_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose_config("data=text", "data.source=text", "tensorboard=true")
    check_tensorboard(config)
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="tensorboard=true: the package is not installed; run `pip install tensor"):
        check_tensorboard(config)
    check_tensorboard(compose_config("data=text", "data.source=text"))


FULL = """
import resource, signal, sys
from train.monitoring.tensorboard import TensorboardSink
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sink = TensorboardSink(sys.argv[1], 0)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for step in range(1, 200):
    sink.write(step, {"train/objective": 1.0, "train/lr": 2.0})
sink.close(0)
print("trained")
"""


def test_a_file_that_cannot_grow_does_not_stop_the_run(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "trained\n"), done.stderr
    assert done.stderr.count("the rows from here on are in metrics.jsonl alone") == 1
