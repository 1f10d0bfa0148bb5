"""A run whose newest checkpoint is damaged goes on from the one before, by itself, with the losses of one piece."""

import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import run_ranks
from training import rows, train

from models.storage.manifest import MANIFEST
from train.errors import TrainingError

OPTIONS = ["early_exit=all", "layer_dropout=exp", "train.steps=7", "checkpoint.every=2", "checkpoint.keep=0"]
SEED = time.time_ns()


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[random.Random(SEED).randrange(len(content))] ^= 4
    file.write_bytes(content)


def zero(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "flipped": ("__0_0.distcp", flip),
    "cut": ("__0_0.distcp", half),
    "empty": ("__0_0.distcp", lambda file: file.write_bytes(b"")),
    "zeroed": ("__0_0.distcp", zero),
    "missing": ("__0_0.distcp", Path.unlink),
    "metadata": (".metadata", flip),
    "manifest": (MANIFEST, flip),
    "no_manifest": (MANIFEST, Path.unlink),
}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoint").iterdir())


def damaged_and_continued(rank: int, tmp: Path, overrides: list[str], damages: list[str]) -> None:
    overrides = [*overrides, *OPTIONS]
    train(rank, tmp / "whole", overrides)
    train(rank, tmp / "killed", overrides, kill_in_step=6)
    for name in damages:
        file, damage = DAMAGES[name]
        folder = tmp / name
        if rank == 0:
            shutil.copytree(tmp / "killed", folder)
            damage(folder / "checkpoint" / "step-4" / file)
        train(rank, folder, overrides)


@pytest.mark.parametrize(
    ("world_size", "damages"),
    [pytest.param(1, list(DAMAGES), marks=pytest.mark.slow), (2, ["flipped", "missing"])],
)
def test_a_damaged_checkpoint_is_set_aside(
    world_size: int, damages: list[str], tmp_path: Path, tiny_run: list[str]
) -> None:
    run_ranks(damaged_and_continued, world_size, tmp_path, tiny_run, damages)
    assert names(tmp_path / "killed") == ["step-2", "step-4"]
    whole = rows(tmp_path / "whole")
    for name in damages:
        assert names(tmp_path / name) == ["step-2", "step-4", "step-4.damaged", "step-6", "step-7"], (name, SEED)
        assert rows(tmp_path / name) == whole, (name, SEED)
        starts = [json.loads(line) for line in (tmp_path / name / "starts.jsonl").read_text().splitlines()]
        assert [start["from_step"] for start in starts] == [0, 2], "the step that was used, not the damaged one"


def refused(rank: int, tmp: Path, overrides: list[str]) -> None:
    overrides = [*overrides, *OPTIONS]
    folder = tmp / "run"
    train(rank, folder, overrides, kill_in_step=6)
    [file] = (folder / "checkpoint" / "step-4").glob("*.distcp")
    kept = file.rename(tmp / "kept")
    file.symlink_to(file)  # reading fails with ELOOP, as it would with EIO or EACCES
    with pytest.raises(TrainingError, match=r"step-4/__0_0\.distcp: cannot be read \(.*make it readable .*, and start"):
        train(rank, folder, overrides)
    assert names(folder) == ["step-2", "step-4"], "what cannot be read may be good"
    file.unlink()
    kept.rename(file)
    # Of before there were manifests: taken as it is, unless a file is too short.
    for manifest in folder.glob(f"checkpoint/*/{MANIFEST}"):
        manifest.unlink()
    shutil.copytree(folder, tmp / "old")
    half(tmp / "old" / "checkpoint" / "step-4" / file.name)
    train(rank, tmp / "old", overrides)
    assert names(tmp / "old") == ["step-2", "step-4", "step-4.damaged", "step-6", "step-7"]
    shutil.copytree(folder, tmp / "old_and_good")
    train(rank, tmp / "old_and_good", overrides)
    assert names(tmp / "old_and_good") == ["step-2", "step-4", "step-6", "step-7"]
    for part in folder.glob("checkpoint/*/*.distcp"):
        half(part)
    for _ in range(2):  # again and again: nothing begins anew silently
        with pytest.raises(TrainingError, match=r"step-2: damaged \(__0_0.*there is no other checkpoint to go on from"):
            train(rank, folder, overrides)
    assert names(folder) == ["step-2", "step-4.damaged"]
    # What a kill leaves of a checkpoint that is being written or deleted.
    good = tmp / "old_and_good" / "checkpoint"
    shutil.copytree(good / "step-7", good / "step-9.partial")
    (good / "step-4").rename(good / "step-4.deleted")
    train(rank, tmp / "old_and_good", [*overrides, "train.steps=8"])
    assert names(tmp / "old_and_good") == ["step-2", "step-6", "step-7", "step-8"]


def test_what_is_refused_and_what_is_old(tmp_path: Path, tiny_run: list[str]) -> None:
    run_ranks(refused, 1, tmp_path, tiny_run)
