"""Where metrics go besides the console: metrics.jsonl in the run folder, W&B, TensorBoard."""

import json
from pathlib import Path

from conf.metrics_file import METRICS
from train.config import PretrainConfig, WandbMode
from train.monitoring.tensorboard import TensorboardSink
from train.monitoring.wandb_sink import WandbSink
from train.resilience.line_file import LineFile


class JsonlSink:
    """One JSON object per line, written through at once; on a full disk, when there is space again."""

    def __init__(self, path: Path) -> None:
        self._lines = LineFile(path)

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Append a row."""
        self._lines.write(json.dumps({"step": step, **metrics}))

    def close(self, exit_status: int) -> None:
        """Close the file."""
        self._lines.close()


Sink = JsonlSink | WandbSink | TensorboardSink


def open_sinks(config: PretrainConfig, first_step: int) -> list[Sink]:
    """The sinks of a run that goes on from a step. For rank 0 alone."""
    sinks: list[Sink] = [JsonlSink(Path(config.run_dir, METRICS))]
    if config.wandb.mode is not WandbMode.disabled:
        sinks.append(WandbSink(config, first_step))
    if config.tensorboard:
        sinks.append(TensorboardSink(config.run_dir, first_step))
    return sinks


def wandb_login_missing(config: PretrainConfig) -> bool:
    """Whether W&B is asked to be online without a login, which would wait for an answer at the keyboard."""
    if config.wandb.mode is not WandbMode.online:
        return False
    import wandb

    return not wandb.login(prompt=False)
