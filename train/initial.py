"""The weights a run starts from, as its checkpoint of step 0, from which torchtitan loads the model alone."""

import logging
from pathlib import Path

from models.storage.checkpoints import complete_checkpoints
from models.storage.stored import read
from models.storage.write_dcp import write_weights

logger = logging.getLogger(__name__)


def start_from(initial: str, run_dir: str) -> None:
    """Write <run_dir>/checkpoint/step-0, unless the run has a checkpoint already. For rank 0 alone."""
    if not complete_checkpoints(run_dir):
        logger.info("starting from the weights of %s", initial)
        write_weights(read(initial).weights, Path(run_dir), dtype=None)
