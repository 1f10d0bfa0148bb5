"""A disk that fills up: the checkpoint before stays and the message says so; metrics alone never stop a run."""

import contextlib
import errno
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import compose_config, run_ranks
from training import rows, train

from train.cost.schedule_plot import plot_schedules
from train.errors import TrainingError
from train.monitoring.plots import plot_perplexity_by_exit
from train.resilience.full_disk import NO_SPACE, in_words, no_space
from train.resilience.line_file import LineFile


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3.5 MB, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3500k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs to mount a tmpfs")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


OPTIONS = ["train.steps=6", "checkpoint.every=2", "validation.every=100"]


def names(run: Path) -> list[str]:
    return sorted(folder.name for folder in (run / "checkpoint").iterdir())


def filled_and_freed(rank: int, run: Path, overrides: list[str]) -> None:
    with pytest.raises(TrainingError) as error:
        train(rank, run, [*overrides, *OPTIONS])
    message = str(error.value)
    assert message.startswith(f"{run}/checkpoint: no space left on device: a checkpoint needs about ")
    assert message.endswith(" MiB are free; free space and start the same command again, which will go on from step 4")
    assert names(run) == ["step-2", "step-4"]
    shutil.rmtree(run / "checkpoint" / "step-2")
    train(rank, run, [*overrides, *OPTIONS]).checkpointer.close()
    assert names(run) == ["step-4", "step-6"]
    assert {row["step"] for row in rows(run)} == set(range(1, 7))


def test_a_checkpoint_that_does_not_fit(small_disk: Path, tiny_run: list[str]) -> None:
    run_ranks(filled_and_freed, 1, small_disk / "run", tiny_run)


def limited(rank: int, run: Path, overrides: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    with pytest.raises(TrainingError, match=r"checkpoint: file too large: a checkpoint needs about .* will begin anew"):
        train(rank, run, [*overrides, *OPTIONS, "checkpoint.async_save=true"])


def test_a_limit_of_file_sizes(tmp_path: Path, tiny_run: list[str]) -> None:
    """SIGXFSZ, as of `ulimit -f`; on two ranks, saved in the background."""
    run_ranks(limited, 2, tmp_path / "run", tiny_run)
    assert names(tmp_path / "run") == []


def test_lines_wait_for_space(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [json.dumps({"step": step, "filling": "x" * 100}) for step in range(40)]
    file = LineFile(small_disk / "metrics.jsonl")
    for row in rows[:10]:
        file.write(row)
    other = small_disk / "other"
    with other.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(1000))
    big = json.dumps({"step": 10, "filling": "x" * 10_000})  # of which a part fits
    for row in [big, *rows[10:30]]:
        file.write(row)
    assert [record.getMessage() for record in caplog.records] == [
        f"{file.path}: cannot be written (No space left on device); training goes on, and its lines wait until they can"
        " be; free space"
    ]
    other.unlink()
    for row in rows[30:]:
        file.write(row)
    file.close()
    assert file.path.read_text().splitlines() == [*rows[:10], big, *rows[10:]]
    assert caplog.records[-1].getMessage() == f"{file.path}: can be written again, and nothing is lost"


def test_what_is_a_full_disk(tmp_path: Path) -> None:
    for number, what in NO_SPACE.items():
        assert no_space(OSError(number, os.strerror(number)), tmp_path) == what
    wrapped = RuntimeError("unexpected pos 704 vs 598")
    assert no_space(wrapped, tmp_path) is None
    assert no_space(wrapped, tmp_path / "gone" / "too", needed=1 << 60) == "no space left on device"
    wrapped.__context__ = OSError(errno.EDQUOT, "Disk quota exceeded")
    assert no_space(wrapped, tmp_path) == "disk quota exceeded"
    assert no_space(OSError(errno.EIO, "Input/output error"), tmp_path) is None
    assert (in_words(90 << 30), in_words(3 << 19)) == ("90.0 GiB", "1.5 MiB")


def test_a_picture_that_does_not_fit_is_named(tmp_path: Path) -> None:
    (full := tmp_path / "full.png").symlink_to("/dev/full")
    validation = {"step": 1, "val/tokens": 9.0, "val/ppl/exit_01": 3.0, "val/ppl/exit_02": 2.0}
    drawn: list[Callable[[], object]] = [
        lambda: plot_perplexity_by_exit([validation], full),
        lambda: plot_schedules(compose_config("run_dir=x"), full),
    ]
    for draw in drawn:
        with pytest.raises(OSError, match=rf"No space left on device: '{full}'"):
            draw()
