"""The weights a run starts from, as its checkpoint of step 0, from which torchtitan loads the model alone."""

import logging
from pathlib import Path

from filelock import FileLock

from models.storage.checkpoints import complete_checkpoints
from models.storage.stored import read
from models.storage.write_dcp import write_weights

logger = logging.getLogger(__name__)


def start_from(initial: str, run_dir: str) -> None:
    """Write <run_dir>/checkpoint/step-0, unless the run has a checkpoint already.

    Processes that start together share the work through a lock: one does it, the others wait.
    """
    folder = Path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / ".initial.lock"
    with FileLock(lock):
        if not complete_checkpoints(folder):
            logger.info("starting from the weights of %s", initial)
            write_weights(read(initial).weights, folder, dtype=None)
    lock.unlink(missing_ok=True)  # whoever waits for it, or makes it anew, finds the checkpoint and does nothing
