"""torchtitan's checkpoints, each committed as a whole with a manifest; a run goes on from the newest that is good."""

import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_saver import AsyncSaveResponse
from torchtitan.components.checkpointer import CheckpointManager

from conf.errors import reason
from models.storage.checkpoints import PARTIAL, complete_checkpoints
from models.storage.manifest import FileSum, Manifest, read_manifest, sums, sync_folder, write_manifest
from train.errors import TrainingError
from train.monitoring.checkpoint_clock import CheckpointClock
from train.resilience.fallback import DELETED, choose
from train.resilience.finite_state import all_finite, n_bytes
from train.resilience.full_disk import in_words, no_space
from train.resilience.staging import mend_staging

logger = logging.getLogger(__name__)

VALIDATION_LOSS = "validation_loss"
"""A fact in the manifest: nats per token of the last layer, where the checkpoint's step was validated."""


class Checkpoints(CheckpointManager):
    """torchtitan's CheckpointManager, which writes to step-N.partial; here it becomes step-N, with a manifest."""

    @dataclass(kw_only=True, slots=True)
    class Config(CheckpointManager.Config):
        """torchtitan's options, and ours. Its `interval` and `keep_latest_k` are as in CheckpointConfig."""

        every_minutes: float | None = None
        keep_every: int | None = None
        keep_best: int = 0

    def __init__(self, config: Config, **parts: Any) -> None:
        super().__init__(config, **parts)
        mend_staging()
        self.config = config
        self.facts: Callable[[], dict[str, Any]] = dict
        """What the manifest of the next checkpoint says besides its files and its step."""
        self.going_on: tuple[int, Manifest | None] | None = None
        self.stopping = False
        """Whether the step that is being done is this process's last, and saved for that reason."""
        self._due, self._owed = False, False
        self.now = time.monotonic
        """The clock of `every_minutes`, in seconds."""
        self._last_save = self.now()
        self.clock = CheckpointClock()
        self._committing = ThreadPoolExecutor(1, thread_name_prefix="commit")

    def choose(self) -> tuple[int, Manifest | None]:
        """The step from which to go on, and its manifest; damaged checkpoints are set aside. All ranks call this."""
        self.going_on = choose(Path(self.folder).parent)
        return self.going_on

    def is_time(self) -> bool:
        """Whether `every_minutes` have passed on this rank since the last checkpoint."""
        minutes = self.config.every_minutes
        return minutes is not None and self.now() - self._last_save >= 60 * minutes

    def decide(self, step: int, *, last: bool, is_time: bool, accepted: bool) -> bool:
        """Whether this step ends with a checkpoint.

        One that is due waits for a step that was not skipped: weights with which the loss is not finite are of no use.

        Args:
            step: that is being done, from 1.
            last: whether it is the run's last, or this process's.
            is_time: what rank 0's clock says, on all ranks.
            accepted: whether the step was not skipped.
        """
        self._owed = self._owed or is_time or step % self.interval == 0
        self._due = last or (self._owed and accepted)
        return self._due

    def _should_save(self, curr_step: int, last_step: bool = False) -> bool:
        return self._due

    def _load(self, step: int = -1) -> bool:
        found, manifest = self.going_on or self.choose()
        if found == 0 and not complete_checkpoints(Path(self.folder).parent):
            return False
        try:
            return super()._load(found)
        except (CheckpointException, Exception) as error:  # the former is a BaseException; readers raise anything
            folder = self._create_checkpoint_id(found)
            remedy = (
                "although its files are as they were written: was that another version of this code?"
                if manifest
                else "it has no manifest.json to check it by; delete that folder to go on from the checkpoint before it"
            )
            raise TrainingError(f"{folder}: cannot be read ({reason(error)}); {remedy}") from error

    def _maybe_wait_for_staging(self) -> None:
        if self.save_future is not None:
            with self.clock.waiting():
                super()._maybe_wait_for_staging()

    def _save(self, curr_step: int, last_step: bool = False) -> bool:
        if not self._should_save(curr_step, last_step):
            return super()._save(curr_step, last_step)
        with self.clock.waiting():
            return self._save_now(curr_step, last_step)

    def _save_now(self, curr_step: int, last_step: bool) -> bool:
        if not all_finite(self.states):
            raise TrainingError(
                f"step {curr_step}: the weights or the optimizer's state are not finite after the update, and are not"
                f" saved; {self.from_where()} with a lower optimizer.lr or a longer warm-up"
            )
        try:
            saved: bool = super()._save(curr_step, last_step or self.stopping)
        except TrainingError:
            raise
        except (CheckpointException, Exception) as error:
            raise self._failed(error) from error
        if saved:
            self._due, self._owed = False, False
            self._last_save = self.now()
        return saved

    def from_where(self) -> str:
        """Where the run can go on, for an error's message."""
        steps = complete_checkpoints(Path(self.folder).parent)
        return f"go on from step {max(steps)}" if steps else "begin anew"

    def dcp_save(self, state_dict: dict[str, Any], checkpoint_id: str, *args: Any, **kwargs: Any) -> Any:
        """Write step-N.partial, and commit it when it is written: at once, or in the background after the writing."""
        begun = time.perf_counter()
        folder, facts = Path(checkpoint_id), self.facts()
        facts["step"] = int(folder.name.removeprefix("step-"))
        written = super().dcp_save(state_dict, checkpoint_id + PARTIAL, *args, **kwargs)
        if not isinstance(written, Future | AsyncSaveResponse):
            self._commit(folder, facts, None)
            self.clock.written(begun)
            return None
        upload: Future = written.upload_completion if isinstance(written, AsyncSaveResponse) else written

        def commit() -> None:
            upload.result()
            self._commit(folder, facts, self.pg)
            self.clock.written(begun)

        done = self._committing.submit(commit)
        return AsyncSaveResponse(written.staging_completion, done) if isinstance(written, AsyncSaveResponse) else done

    def _commit(self, folder: Path, facts: dict[str, Any], group: dist.ProcessGroup | None) -> None:
        """Each rank hashes what it has written; rank 0 writes the manifest, renames, and deletes what is superseded."""
        partial, rank = folder.with_name(folder.name + PARTIAL), dist.get_rank()
        found: list[dict[str, FileSum] | str | None] = [None] * dist.get_world_size()
        try:
            mine: dict[str, FileSum] | str = sums(partial, written_by(rank, partial))
        except OSError as error:
            mine = f"{partial}: cannot be read again ({error.strerror})"
        dist.all_gather_object(found, mine, group=group)
        failures = [result for result in found if isinstance(result, str)]
        if not failures and rank == 0:
            try:
                files = {name: file for result in found if isinstance(result, dict) for name, file in result.items()}
                write_manifest(partial, files, facts)
                shutil.rmtree(folder, ignore_errors=True)
                os.rename(partial, folder)
                sync_folder(folder.parent)
                self._delete_superseded()
            except OSError as error:
                failures = [f"{folder}: {no_space(error, folder) or error.strerror}"]
        agreed: list[Any] = [failures]
        dist.broadcast_object_list(agreed, group=group)
        if agreed[0]:
            raise TrainingError(agreed[0][0])

    def _delete_superseded(self) -> None:
        if not self.keep_latest_k:
            return
        complete = complete_checkpoints(Path(self.folder).parent)
        best = self.config.keep_best  # without it no manifest has to be read
        losses = {step: _validation_loss(folder) if best else None for step, folder in complete.items()}
        for step in superseded(losses, self.keep_latest_k, self.config.keep_every, best):
            # Under another name first: half deleted, it would look damaged.
            going = complete[step].with_name(complete[step].name + DELETED)
            os.rename(complete[step], going)
            self.purge_queue.put(str(going))

    def _purge_stale_checkpoints(self) -> None:
        """Left to `_commit`: torchtitan does not call this after the last step, and counts half-written checkpoints."""

    def _wait_for_saving(self) -> None:
        try:
            super()._wait_for_saving()
        except (CheckpointException, Exception) as error:
            self.save_future = None
            raise self._failed(error) from error

    def _failed(self, error: BaseException) -> TrainingError:
        """Delete what is half written, and say why it is."""
        folder = Path(self.folder)
        needed = n_bytes(self.states)
        partials = list(folder.glob(f"step-*{PARTIAL}"))
        full = no_space(error, folder, max(0, needed - sum(size_of(partial) for partial in partials)))
        if dist.get_rank() == 0:
            for partial in partials:
                shutil.rmtree(partial, ignore_errors=True)
        if full is None:
            if isinstance(error, TrainingError):
                return error
            return TrainingError(
                f"{folder}: a checkpoint cannot be written ({reason(error)}); the ones before it are kept, and the same"
                f" command will {self.from_where()}"
            )
        free = shutil.disk_usage(folder).free
        return TrainingError(
            f"{folder}: {full}: a checkpoint needs about {in_words(needed)}, and {in_words(free)} are free; free space"
            f" and start the same command again, which will {self.from_where()}"
        )

    def _close(self) -> None:
        if self.save_future is not None:
            try:
                self.save_future.result()
            except (CheckpointException, Exception) as error:
                logger.error("the last checkpoint was not written: %s", reason(error))
            self.save_future = None
        self._committing.shutdown()
        super()._close()


def written_by(rank: int, folder: Path) -> list[str]:
    """The files of a checkpoint that this rank has written: DCP names them after the rank; .metadata is rank 0's."""
    return [
        f.name for f in folder.iterdir() if f.name.startswith(f"__{rank}_") or (rank == 0 and f.name == ".metadata")
    ]


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder, which another rank may be deleting."""
    try:
        return sum(file.stat().st_size for file in folder.iterdir())
    except OSError:
        return 0


def _validation_loss(folder: Path) -> float | None:
    manifest = read_manifest(folder)
    loss = manifest.facts.get(VALIDATION_LOSS) if isinstance(manifest, Manifest) else None
    return float(loss) if loss is not None else None


def superseded(losses: Mapping[int, float | None], keep: int, keep_every: int | None, keep_best: int) -> list[int]:
    """The steps whose checkpoints are to be deleted.

    Args:
        losses: step -> validation loss, or None where there was no validation, of every complete checkpoint.
        keep: the newest so many stay; 0: all stay.
        keep_every: those of every so-many-th step stay; None: no step is special.
        keep_best: the so many with the lowest validation loss stay; of equals the later one.
    """
    steps = sorted(losses)
    kept = set(steps[-keep:]) if keep else set(steps)
    kept |= {step for step in steps if keep_every and step > 0 and step % keep_every == 0}
    validated = [step for step in steps if (loss := losses[step]) is not None and math.isfinite(loss)]
    kept |= set(sorted(validated, key=lambda step: (losses[step], -step))[:keep_best])
    return [step for step in steps if step not in kept]
