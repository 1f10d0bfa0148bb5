"""A manifest finds every change of a checkpoint's files, and damage is not the same as what merely cannot be read."""

import json
import os
import random
import time
from pathlib import Path

import pytest

from models.storage.checkpoints import check, complete_checkpoints, verify
from models.storage.errors import FormatError
from models.storage.manifest import MANIFEST, PIECE, Manifest, Problem, add_manifest, problems, read_manifest
from train.resilience.fallback import check_share


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "checkpoint" / "step-4"
    folder.mkdir(parents=True)
    (folder / "__0_0.distcp").write_bytes(random.Random(0).randbytes(PIECE + 1000))
    (folder / "__1_0.distcp").write_bytes(random.Random(1).randbytes(5000))
    (folder / ".metadata").write_bytes(b"where the tensors are")
    add_manifest(folder, {"step": 4, "validation_loss": 2.5})
    return folder


def found(folder: Path) -> list[Problem]:
    manifest = read_manifest(folder)
    assert manifest is not None
    return [manifest] if isinstance(manifest, Problem) else check(folder, manifest)


def test_nothing_is_wrong_with_what_was_written(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert isinstance(manifest, Manifest)
    assert sorted(manifest.files) == [".metadata", "__0_0.distcp", "__1_0.distcp"]
    assert (manifest.facts["step"], manifest.facts["validation_loss"]) == (4, 2.5)
    assert found(folder) == []
    verify(folder)


def test_every_flipped_bit_is_found(folder: Path) -> None:
    seed = time.time_ns()
    rng = random.Random(seed)
    files = sorted(folder.iterdir())
    for i in range(60):
        file = files[i % len(files)]
        content = file.read_bytes()
        at, bit = rng.randrange(len(content)), rng.randrange(8)
        file.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
        [problem] = found(folder)
        assert problem.damaged, seed
        assert problem.file == file.name, seed
        file.write_bytes(content)
    assert found(folder) == []


def test_what_is_wrong_is_named(folder: Path) -> None:
    file = folder / "__1_0.distcp"
    os.truncate(file, 4000)
    assert found(folder) == [Problem("__1_0.distcp", True, "it has 4,000 bytes and should have 5,000")]
    file.write_bytes(bytes(5000))
    with pytest.raises(FormatError, match=r"step-4/__1_0\.distcp: damaged \(its content differs from the SHA-256 in"):
        verify(folder)
    file.unlink()
    assert found(folder) == [Problem("__1_0.distcp", True, "it is missing")]
    file.symlink_to(file)  # an error of reading, not of content
    [problem] = found(folder)
    assert not problem.damaged
    with pytest.raises(FormatError, match=r"__1_0\.distcp: cannot be read \(.*make it readable .*; then start"):
        verify(folder)


def test_a_file_without_permission_is_not_called_damaged(folder: Path) -> None:
    for parent in folder.parents:  # let another user in, as far as this one may
        if parent.owner() == folder.owner() and parent != Path("/tmp"):
            parent.chmod(0o755)
    (folder / "__0_0.distcp").chmod(0)
    manifest = read_manifest(folder)
    assert isinstance(manifest, Manifest)
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        [problem] = problems(folder, manifest.files)
        with pytest.raises(
            FormatError, match=r"__0_0\.distcp: cannot be read \(Permission denied\), which says nothing"
        ):
            verify(folder)
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
    assert problem == Problem("__0_0.distcp", False, "Permission denied")


def test_ranks_share_the_reading(folder: Path) -> None:
    for file in folder.iterdir():
        if file.name != MANIFEST:
            file.write_bytes(b"?" * file.stat().st_size)
    manifest = read_manifest(folder)
    assert isinstance(manifest, Manifest)
    shares = [[p.file for p in check_share(folder, manifest, rank, 2)] for rank in range(2)]
    assert shares == [["__0_0.distcp", ".metadata"], ["__1_0.distcp"]], "the largest first, dealt in turn"


def test_what_is_complete(tmp_path: Path) -> None:
    def make(name: str, *files: str) -> None:
        folder = tmp_path / "checkpoint" / name
        folder.mkdir(parents=True)
        for file in files:
            (folder / file).touch()

    make("step-2", ".metadata")  # of before there were manifests
    make("step-4", "__0_0.distcp")
    assert list(complete_checkpoints(tmp_path)) == [2]
    make("step-6", ".metadata", MANIFEST)
    make("step-8", ".metadata")  # this run writes manifests, so this one is half written
    make("step-10.partial", ".metadata", MANIFEST)
    make("step-12.damaged", ".metadata", MANIFEST)
    make("step-14", MANIFEST)  # a damaged one, which is found when it is checked
    assert list(complete_checkpoints(tmp_path)) == [2, 6, 14]


def test_the_remedy_names_the_checkpoint_before(folder: Path) -> None:
    older = folder.with_name("step-2")
    older.mkdir()
    add_manifest(older, {"step": 2})
    (folder / ".metadata").unlink()
    with pytest.raises(FormatError, match=rf"\.metadata: damaged \(it is missing\); the one before it is {older}"):
        verify(folder)
    content = json.loads((folder / MANIFEST).read_text())
    content["facts"]["step"] = 5
    (folder / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(FormatError, match=r"manifest\.json: damaged \(its content differs from its SHA-256\)"):
        verify(folder)
