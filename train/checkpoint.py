"""torchtitan's checkpoints, and a damaged one told in one line."""

from dataclasses import dataclass

from torch.distributed.checkpoint.api import CheckpointException
from torchtitan.components.checkpointer import CheckpointManager

from train.errors import TrainingError


class Checkpoints(CheckpointManager):
    """torchtitan's CheckpointManager; `_load` is one of the hooks it offers."""

    @dataclass(kw_only=True, slots=True)
    class Config(CheckpointManager.Config):
        """As torchtitan's; declared anew so that it builds this class."""

    def _load(self, step: int = -1) -> bool:
        try:
            return super()._load(step)
        except (CheckpointException, Exception) as error:  # the former is a BaseException; readers raise anything
            found = self._find_load_step() if step == -1 else step
            reason = (str(error).strip() or type(error).__name__).split("\n")[0]
            raise TrainingError(
                f"{self._create_checkpoint_id(found)}: cannot be read ({reason});"
                " delete that folder to continue from the checkpoint before it"
            ) from error
