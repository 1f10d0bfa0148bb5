"""The lock of a run folder: one holder at a time, though its file comes and goes."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from train import run_dir
from train.cluster import folder_lock
from train.cluster.folder_lock import FolderLock

ROOT = Path(__file__).parent.parent
TAKE_TURNS = """
import sys
from pathlib import Path
from train.cluster.folder_lock import FolderLock

folder = Path(sys.argv[1])
for _ in range(300):
    with FolderLock(folder / "lock") as lock:
        lock.acquire(seconds=60)
        (folder / "inside").touch(exist_ok=False)
        (folder / "inside").unlink()
"""


def test_a_folder_is_as_it_was_when_it_is_let_go_of(tmp_path: Path) -> None:
    with run_dir.lock(tmp_path, 0):
        assert os.listdir(tmp_path) == [".lock"]
    assert not os.listdir(tmp_path)


def test_one_at_a_time(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TAKE_TURNS, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(4)]
    errors = [process.communicate()[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, errors


def test_a_file_that_was_deleted_between_opening_and_locking_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment in which a holder lets go, and another process makes the file anew."""
    path, others = tmp_path / "lock", FolderLock(tmp_path / "lock")
    lock_file = folder_lock._lock

    def meanwhile(descriptor: int) -> bool:
        monkeypatch.setattr(folder_lock, "_lock", lock_file)
        path.unlink()
        others.acquire(seconds=0)
        return lock_file(descriptor)

    monkeypatch.setattr(folder_lock, "_lock", meanwhile)
    with pytest.raises(TimeoutError):
        FolderLock(path).acquire(seconds=0.2)
    others.release()
    FolderLock(path).acquire(seconds=0)


def test_a_forked_process_does_not_hold_the_folder_on(tmp_path: Path) -> None:
    held = FolderLock(tmp_path / "lock")
    held.acquire(seconds=0)
    fork = multiprocessing.get_context("fork")
    end = fork.Event()
    child = fork.Process(target=end.wait, daemon=True)
    child.start()
    assert held._descriptor is not None
    os.close(held._descriptor)  # as when this process is killed
    folder_lock._held.clear()
    try:
        FolderLock(tmp_path / "lock").acquire(seconds=1)
    finally:
        end.set()
        child.join()


def test_without_locks_a_run_starts_and_is_warned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(*_: object) -> None:
        raise OSError(folder_lock.errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(folder_lock.fcntl, "flock", missing)
    with run_dir.lock(tmp_path, 0):
        assert "no locks on this file system" in caplog.text
