"""Signs of life without a terminal: lines at growing intervals, with what is left; none for work that is soon over."""

import io
import itertools
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from conf import progress as module
from conf.progress import Lines, duration, each, intervals, progress
from models.config import ModelConfig
from models.storage.hf import shape_of
from models.storage.sources import Weights
from models.storage.write_dcp import write_weights
from models.storage.write_hf import write_hf

ROOT = Path(__file__).parent.parent


class SlowWeights(Weights):
    """Zeros that take 5 ms a tensor, like a large model's on a slow disk."""

    def _read(self, name: str) -> torch.Tensor:
        time.sleep(0.005)
        return torch.zeros(shape_of(name, self.size))


def test_lines_come_ever_more_rarely() -> None:
    assert list(itertools.islice(intervals(), 9)) == [5, 10, 20, 40, 80, 160, 300, 300, 300]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (65, "1:05"), (3600, "1:00:00"), (90061, "25:01:01")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_what_a_line_says() -> None:
    bar = Lines("held_out", unit="sample", total=96, initial=36)
    assert bar.line(5) == "held_out: 36 of 96 samples, 0:05 elapsed"
    bar.update(12)
    assert bar.line(60) == "held_out: 48 of 96 samples, 1:00 elapsed, about 4:00 left", "at the speed of this start"
    bar.set_postfix_str("2 unexplained")
    assert bar.line(60).endswith("4:00 left (2 unexplained)")
    unknown = Lines("perplexity", unit="batch")
    unknown.update()
    assert unknown.line(60) == "perplexity: 1 batch, 1:00 elapsed"
    size = Lines("tokenizing", unit="B", total=20e6)
    size.update(5_000_000)
    assert size.line(10) == "tokenizing: 5.0 of 20.0 MB, 0:10 elapsed, about 0:30 left"


def test_lines_are_written_while_one_item_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST", 0.02)
    out = io.StringIO()
    with Lines("benchmark", unit="sample", total=2, out=out) as bar:
        deadline = time.monotonic() + 10
        while out.getvalue().count("\n") < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        bar.update(2)
    lines = out.getvalue().splitlines()
    assert lines[0] == "benchmark: 0 of 2 samples, 0:00 elapsed"
    assert lines[-1] == "benchmark: done, 2 samples in 0:00"


def test_work_that_is_soon_over_or_fails_says_nothing_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(each([1, 2, 3], "work", unit="item")) == [1, 2, 3]
    with pytest.raises(KeyError), progress("work", unit="item"):
        raise KeyError
    assert capsys.readouterr().err == ""


def test_a_loop_that_is_left_early_leaves_no_thread() -> None:
    program = """
import threading
from conf.progress import each
for item in each(range(10), "work", unit="item"):
    break
assert threading.active_count() == 1, threading.enumerate()
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("to_hf", [True, False], ids=["hf", "dcp"])
def test_large_models_show_how_many_tensors_are_converted(
    to_hf: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "FIRST", 0.02)
    weights = SlowWeights(ModelConfig(dim=8, n_layers=2, n_heads=2, vocab_size=16, ffn_dim=8, max_seq_len=8), ROOT)
    if to_hf:
        write_hf(weights, tmp_path, dtype=None, max_shard_bytes=1e9, bos_id=1, eos_id=2)
    else:
        write_weights(weights, tmp_path, dtype=None)
    lines = capsys.readouterr().err.splitlines()
    what = "writing weights" if to_hf else "reading weights"
    assert " of 21 tensors, " in lines[0]
    assert lines[-1].startswith(f"{what}: done, 21 tensors in ")


def test_tqdm_is_used_here_alone() -> None:
    """But for training, whose step bar stands among its lines of metrics."""
    users = {
        file.relative_to(ROOT).as_posix()
        for package in ("conf", "data", "models", "eval", "train")
        for file in (ROOT / package).rglob("*.py")
        if "from tqdm" in file.read_text() or "import tqdm" in file.read_text()
    }
    assert users == {"conf/progress.py", "train/monitoring/console.py", "train/monitoring/metrics.py"}
