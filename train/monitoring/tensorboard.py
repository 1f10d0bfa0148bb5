"""TensorBoard: the scalars of metrics.jsonl in <run_dir>/tensorboard, and charts with all exits in one."""

import logging
from importlib.util import find_spec
from pathlib import Path

from conf.errors import reason
from conf.strict import ConfigError
from train.config import PretrainConfig

logger = logging.getLogger(__name__)

FOLDER = "tensorboard"
BY_EXIT = {
    "perplexity": "val/ppl",
    "loss": "val/loss",
    "bits per byte": "val/bpb",
    "agreement with the last layer": "val/agreement",
    "acceptance by the last layer": "val/acceptance",
    "training loss": "train/loss",
    "divergence from the last layer": "train/divergence",
}
"""Charts of TensorBoard's tab Custom Scalars, each with the lines of all exits."""


class TensorboardSink:
    """Event files, to which every start of a run adds one. A full disk is a warning: metrics.jsonl has the rows."""

    def __init__(self, run_dir: str | Path, first_step: int) -> None:
        """Begin after a step: what earlier starts have written of later ones is purged when the files are read."""
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and not needed in every run

        self._broken = False
        self._writer = SummaryWriter(str(Path(run_dir, FOLDER)), purge_step=first_step + 1)
        charts = {title: ["Multiline", [f"{metric}/exit_.*"]] for title, metric in BY_EXIT.items()}
        self._writer.add_custom_scalars({"by exit": charts})

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Write a row at a step, through to the disk: a row before a checkpoint must outlive a kill after it."""
        if self._broken:
            return
        try:
            for key, value in metrics.items():
                self._writer.add_scalar(key, value, step)
            self._writer.flush()
        except Exception as error:  # tensorboard's writing thread hands on whatever has ended it
            self._broken = True
            logger.warning("TensorBoard: %s; the rows from here on are in metrics.jsonl alone", reason(error))

    def close(self, exit_status: int) -> None:
        """Close the file."""
        if not self._broken:
            self._writer.close()


def check_tensorboard(config: PretrainConfig) -> None:
    """Raise ConfigError where TensorBoard is asked for and not installed."""
    if config.tensorboard and find_spec("tensorboard") is None:
        raise ConfigError("tensorboard=true: the package is not installed; run `pip install tensorboard`, or set false")
