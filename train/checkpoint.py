"""torchtitan's checkpoints: as many are left as are to be kept, and a damaged one is told in one line."""

import re
from dataclasses import dataclass
from pathlib import Path

from torch.distributed.checkpoint.api import CheckpointException
from torchtitan.components.checkpointer import CheckpointManager

from conf.errors import reason
from models.storage.checkpoints import complete_checkpoints
from train.errors import TrainingError


class Checkpoints(CheckpointManager):
    """torchtitan's CheckpointManager; `_load` and `_save` are hooks that it offers."""

    @dataclass(kw_only=True, slots=True)
    class Config(CheckpointManager.Config):
        """torchtitan's options; declared anew so that they build this class."""

    def _load(self, step: int = -1) -> bool:
        try:
            return super()._load(step)
        except (CheckpointException, Exception) as error:  # the former is a BaseException; readers raise anything
            found = self._find_load_step() if step == -1 else step
            raise TrainingError(
                f"{self._create_checkpoint_id(found)}: cannot be read ({reason(error)});"
                " delete that folder to continue from the checkpoint before it"
            ) from error

    stopping = False
    """Whether the step that is being done is this process's last, and saved for that reason."""

    def _save(self, curr_step: int, last_step: bool = False) -> bool:
        saved: bool = super()._save(curr_step, last_step or self.stopping)
        if saved and self._should_purge():
            for folder in superseded(Path(self.folder), curr_step, self.keep_latest_k):
                self.purge_queue.put(str(folder))
        return saved

    def _purge_stale_checkpoints(self) -> None:
        """Left to `_save`: torchtitan does not call this after the last step, and counts half-written checkpoints."""


def superseded(folder: Path, step: int, keep: int) -> list[Path]:
    """The checkpoints to delete when that of `step` is written (or, in the background, is being written).

    The newest `keep` stay, of which `step` is one and all others are complete; the halves that killed runs have left
    are no use to anyone.
    """
    kept = sorted({*complete_checkpoints(folder.parent), step})[-keep:]
    found = ((f, re.fullmatch(r"step-(\d+)", f.name)) for f in folder.iterdir())
    return sorted(f for f, match in found if match and int(match[1]) not in kept)
