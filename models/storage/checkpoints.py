"""Where the checkpoints of a run folder lie, which of them are complete, and whether they are as they were written."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from conf.progress import progress
from models.storage.errors import FormatError
from models.storage.manifest import MANIFEST, Manifest, Problem, problems, read_manifest

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoint"
PARTIAL = ".partial"
"""Suffix of a checkpoint that is being written."""
METADATA = ".metadata"
"""What DCP writes last: where in the folder's files each tensor is."""


def complete_checkpoints(run_dir: str | Path) -> dict[int, Path]:
    """Step -> folder of every complete checkpoint.

    A checkpoint is written as step-N.partial and renamed when its manifest is there. Runs of before there were
    manifests have checkpoints without, which are complete with their .metadata; not so in a run that has begun to write
    manifests.
    """
    steps = {step: folder for step, folder in step_folders(run_dir) if _has(folder, MANIFEST, METADATA)}
    first = min((step for step, folder in steps.items() if _has(folder, MANIFEST)), default=None)
    return {s: f for s, f in sorted(steps.items()) if first is None or s < first or _has(f, MANIFEST)}


def step_folders(run_dir: str | Path) -> Iterator[tuple[int, Path]]:
    """Step and folder of every step-N, complete or not."""
    for folder in Path(run_dir, CHECKPOINTS).glob("step-*"):
        if match := re.fullmatch(r"step-(\d+)", folder.name):
            yield int(match[1]), folder


def _has(folder: Path, *names: str) -> bool:
    try:
        return any((folder / name).exists() for name in names)
    except PermissionError:  # a folder that may not be entered: the error comes when it is to be read
        return True


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint, as opposed to a run folder that has some."""
    return _has(folder, MANIFEST, METADATA)


def verify(folder: Path) -> None:
    """Compare a checkpoint with its manifest. Raises FormatError, which names the file and what can be done."""
    manifest = read_manifest(folder)
    if manifest is None:
        logger.warning("%s: has no %s to check it by; it is taken as it is", folder, MANIFEST)
        return
    found = [manifest] if isinstance(manifest, Problem) else check(folder, manifest)
    if not found:
        return
    first = found[0]
    if not first.damaged:
        raise FormatError(f"{unreadable(folder, first)}; then start the same command again")
    raise FormatError(f"{folder / first.file}: damaged ({first.what}); {_instead(folder)}")


def check(folder: Path, manifest: Manifest) -> list[Problem]:
    """What is wrong with the files of a checkpoint, all of which are read, with progress where that takes long."""
    with progress(f"checking {folder}", unit="B", total=manifest.n_bytes()) as bar:
        return problems(folder, manifest.files, bar.update)


def unreadable(folder: Path, problem: Problem) -> str:
    """One line for a file that may be good but cannot be read: nothing is to be deleted."""
    return (
        f"{folder / problem.file}: cannot be read ({problem.what}), which says nothing against the checkpoint;"
        " make it readable (permissions, disk, mount)"
    )


def _instead(folder: Path) -> str:
    """What to do about a damaged checkpoint."""
    step = re.fullmatch(r"step-(\d+)", folder.name)
    complete = complete_checkpoints(folder.parent.parent) if step and folder.parent.name == CHECKPOINTS else {}
    older = [f for s, f in complete.items() if step and s < int(step[1])]
    if older:
        return f"the one before it is {older[-1]}, and training goes on from there by itself"
    return "restore the file, or write the checkpoint anew"
