"""What the machine refuses ends a command in one line; a mistake of ours keeps its traceback."""

import errno
import os
from pathlib import Path

import pytest
import torch

from conf.errors import naming, of_machine
from conf.machine import total_memory


def test_a_full_disk_and_a_missing_folder_name_the_file(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x.npy")
    assert of_machine(full) == (
        "/data/x.npy: No space left on device; free some space there, and give the same command again"
    )
    with pytest.raises(FileNotFoundError) as error:
        (tmp_path / "gone" / "x").write_text("")
    assert of_machine(error.value) == (
        f"{tmp_path}/gone/x: No such file or directory; see whether its folder is there and may be used"
    )


def test_memory() -> None:
    for allocate in (lambda: torch.empty(10**15), lambda: bytearray(10**15)):
        with pytest.raises((RuntimeError, MemoryError)) as error:
            allocate()
        line = of_machine(error.value)
        assert line is not None
        assert line.startswith("out of memory (")
        assert "\n" not in line


def test_other_errors_are_ours() -> None:
    for error in (ValueError("no"), RuntimeError("shape"), KeyError("a"), OSError("without a number")):
        assert of_machine(error) is None


def test_errors_of_an_open_file_get_its_name() -> None:
    full = Path("/dev/full")
    expected = pytest.raises(OSError, match=r"\[Errno 28\] No space left on device: '/dev/full'")
    with expected, naming(full), full.open("wb", buffering=0) as stream:
        stream.write(b"x")


def test_memory_of_the_machine_or_of_its_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for content, memory in (("1000000\n", 1_000_000), ("max\n", physical)):
        (tmp_path / "memory.max").write_text(content)
        monkeypatch.setattr("conf.machine.CGROUP", tmp_path / "memory.max")
        assert total_memory() == memory
