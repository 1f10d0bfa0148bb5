"""Which checkpoint a run goes on from: the newest whose files are what was written. A damaged one is set aside."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from conf.progress import progress
from models.storage.checkpoints import CHECKPOINTS, PARTIAL, complete_checkpoints, step_folders, unreadable
from models.storage.manifest import Manifest, Problem, problems, read_manifest
from train.errors import TrainingError
from train.resilience.dcp_pieces import pieces_missing

logger = logging.getLogger(__name__)

DAMAGED = ".damaged"
"""Suffix of a checkpoint that has been set aside."""
DELETED = ".deleted"
"""Suffix of a checkpoint that is being deleted."""


def tidy(run_dir: Path) -> None:
    """Delete what killed processes have left: checkpoints half written or half deleted. For rank 0 alone."""
    for suffix in (PARTIAL, DELETED):
        for folder in Path(run_dir, CHECKPOINTS).glob(f"step-*{suffix}"):
            shutil.rmtree(folder, ignore_errors=True)
    complete = complete_checkpoints(run_dir).values()
    for _, folder in list(step_folders(run_dir)):
        if folder in complete:
            continue
        if (folder / ".metadata").exists():
            set_aside(folder, "manifest.json: it is missing, and this run writes one with every checkpoint")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def choose(run_dir: Path) -> tuple[int, Manifest | None]:
    """The step to go on from (0: the beginning, or the weights of step 0) and its manifest, if it has one.

    The ranks of the process group, if there is one, share the reading; all of them call this and get the same. A
    damaged checkpoint is renamed, so that nothing takes it again; but not the last one, or a restart would begin anew
    silently.
    Raises TrainingError for a checkpoint that cannot be read, and when none is good.
    """
    together = dist.is_initialized()
    rank = dist.get_rank() if together else 0
    if rank == 0:
        tidy(run_dir)
    while True:
        found: list[Any] = [_newest(run_dir) if rank == 0 else None]
        if together:
            dist.broadcast_object_list(found)
        if found[0] is None:
            return 0, None
        step, folder, manifest, is_last = found[0]
        wrong = [manifest] if isinstance(manifest, Problem) else _check(folder, manifest)
        unread = [problem for problem in wrong if not problem.damaged]
        if unread:
            raise TrainingError(f"{unreadable(folder, unread[0])}, and start the same command again")
        if not wrong:
            if manifest is None and rank == 0:
                logger.warning("%s: has no manifest.json to check it by; it is taken as it is", folder)
            return step, manifest
        what = f"{wrong[0].file}: {wrong[0].what}"
        if is_last:
            raise TrainingError(
                f"{folder}: damaged ({what}), and there is no other checkpoint to go on from; restore it from a copy,"
                " or delete the folder to begin anew"
            )
        if rank == 0:
            set_aside(folder, what)


def set_aside(folder: Path, what: str) -> None:
    """Rename a damaged checkpoint, and say so."""
    names = (folder.with_name(folder.name + DAMAGED + (f".{i}" if i else "")) for i in range(1000))
    name = next(name for name in names if not name.exists())
    try:
        folder.rename(name)
    except OSError as error:
        raise TrainingError(
            f"{folder}: damaged ({what}), and cannot be renamed ({error.strerror}); remove it and start the same"
            " command again"
        ) from None
    logger.warning(
        "WARNING: %s IS DAMAGED (%s); it is %s now, and the run goes on from the checkpoint before it",
        folder,
        what,
        name.name,
    )


def _newest(run_dir: Path) -> tuple[int, Path, Manifest | Problem | None, bool] | None:
    complete = complete_checkpoints(run_dir)
    if not complete:
        return None
    step = max(complete)
    return step, complete[step], read_manifest(complete[step]), len(complete) == 1


def _check(folder: Path, manifest: Manifest | None) -> list[Problem]:
    """What all ranks together have found in a checkpoint."""
    together = dist.is_initialized()
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)
    if manifest is None:
        mine = pieces_missing(folder) if rank == 0 else []
    else:
        mine = check_share(folder, manifest, rank, world_size)
    found: list[Any] = [mine] * world_size
    if together:
        dist.all_gather_object(found, mine)
    return [problem for of_rank in found for problem in of_rank]


def check_share(folder: Path, manifest: Manifest, rank: int, world_size: int) -> list[Problem]:
    """What is wrong with the files of a checkpoint that this rank reads: every so-many-th, the largest first."""
    by_size = sorted(manifest.files, key=lambda name: (-manifest.files[name].bytes, name))
    mine = {name: manifest.files[name] for name in by_size[rank::world_size]}
    update: Callable[[int], object] = lambda n: None  # noqa: E731
    if rank:
        return problems(folder, mine, update)
    n_bytes = sum(file.bytes for file in mine.values())
    with progress(f"checking {folder}", unit="B", total=n_bytes) as bar:
        return problems(folder, mine, bar.update)
