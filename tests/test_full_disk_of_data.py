"""A full disk is told in one line that names the file, and leaves what was there; with room the same command goes on.

The disk is a file system of a megabyte in memory, mounted in a namespace of the test's own.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY_TEXT

ROOT = Path(__file__).parent.parent
NAMESPACE = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
CAN_MOUNT = subprocess.run([*NAMESPACE, "mount -t tmpfs none /mnt"], capture_output=True).returncode == 0
pytestmark = pytest.mark.skipif(not CAN_MOUNT, reason="no namespace with a file system of its own can be made here")
FULL = r"error: {file}: No space left on device; free some space there, and give the same command again\n"


def on_small_disk(disk: Path, before: str, module: str, *words: str, after: str) -> subprocess.CompletedProcess[str]:
    """Run a command with a disk of a megabyte at `disk`, and others before and after; the status is the command's."""
    disk.mkdir()
    command = shlex.join([sys.executable, "-m", module, *words])
    script = f"mount -t tmpfs -o size=1m none {disk}; {before}; {command}; status=$?; {after}; exit $status"
    return subprocess.run([*NAMESPACE, script], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text").mkdir()
    for i in range(40):
        (tmp_path / f"text/{i}.txt").write_text(f"number {i}\n{TINY_TEXT}")
    return tmp_path / "text"


def test_data_prepare_goes_on_when_there_is_room(tmp_path: Path, text: Path) -> None:
    words = [f"dataset.path={text}", f"output={tmp_path}/disk/shards", "tokenizer.vocab_size=400", "workers=1"]
    words += ["shard_tokens=100000"]
    again = shlex.join([sys.executable, "-m", "data.prepare", *words])
    more = f"ls {tmp_path}/disk/shards; mount -o remount,size=64m {tmp_path}/disk; {again} 2>&1"
    done = on_small_disk(tmp_path / "disk", "true", "data.prepare", *words, after=more)
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines(keepends=True)[-1]
    assert re.fullmatch(FULL.format(file=r".*/disk/shards/\S+"), last), done.stderr
    assert "Traceback" not in done.stderr
    assert "train_00000.npy" in done.stdout
    assert re.search(r"going on after \d+ complete shards", done.stdout), done.stdout
    assert re.search(r"train +3\d documents", done.stdout), done.stdout


def test_the_cache_of_a_run(tmp_path: Path, text: Path) -> None:
    words = ["data=text", f"data.source={text}", f"data.cache_dir={tmp_path}/disk/cache", f"run_dir={tmp_path}/run"]
    words += ["model.vocab_size=400", "wandb.mode=disabled"]
    done = on_small_disk(tmp_path / "disk", "true", "train.pretrain", *words, after="true")
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines(keepends=True)[-1]
    assert re.fullmatch(FULL.format(file=r".*/disk/cache/\S+"), last), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_old_result_is_kept(tmp_path: Path) -> None:
    fill = f"echo old > {tmp_path}/disk/f.json; head -c 2000000 /dev/zero > {tmp_path}/disk/fill"
    program = "from pathlib import Path; from data.files import write_whole; write_whole(Path({!r}), b'new' * 10**6)"
    disk = tmp_path / "disk"
    disk.mkdir()
    write = shlex.join([sys.executable, "-c", program.format(f"{disk}/f.json")])
    script = f"mount -t tmpfs -o size=1m none {disk}; {fill}; {write}; cat {disk}/f.json; ls {disk}"
    done = subprocess.run([*NAMESPACE, script], cwd=ROOT, capture_output=True, text=True)
    assert f"OSError: [Errno 28] No space left on device: '{disk}/f.json'" in done.stderr
    assert done.stdout == "old\nf.json\nfill\n", "neither half a file nor another one"
