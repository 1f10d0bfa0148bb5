"""Where metrics go besides the console: metrics.jsonl in the run folder, and W&B."""

import json
import logging
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from conf.errors import reason
from train.config import PretrainConfig, WandbMode
from train.resilience.line_file import LineFile

logger = logging.getLogger(__name__)


class JsonlSink:
    """One JSON object per line, written through at once; on a full disk, when there is space again."""

    def __init__(self, path: Path) -> None:
        self._lines = LineFile(path)

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Append a row."""
        self._lines.write(json.dumps({"step": step, **metrics}))

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


class WandbSink:
    """A W&B run whose id lies in the run folder, so that a continued run continues it."""

    def __init__(self, config: PretrainConfig) -> None:
        import wandb  # slow to import, and not needed in every run

        folder = Path(config.run_dir)
        id_file = folder / "wandb_id"
        if not id_file.exists():
            id_file.write_text(uuid.uuid4().hex[:8])
        self._run = wandb.init(
            mode=config.wandb.mode.value,
            project=config.wandb.project,
            entity=config.wandb.entity,
            name=folder.name,
            id=id_file.read_text().strip(),
            resume="allow",
            dir=str(folder),
            config=asdict(config),
            settings=wandb.Settings(silent=config.wandb.mode is not WandbMode.online),
        )
        self._broken = False

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Log a row at a step. What W&B cannot take (a full disk, a process of its own that is gone) is a warning."""
        if not self._broken:
            self._try(lambda: self._run.log(metrics, step=step))

    def close(self) -> None:
        """Finish the run."""
        self._try(self._run.finish)

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # wandb has no list of what it raises
            self._broken = True
            logger.warning(
                "W&B: failed (%s); training goes on without it, and metrics.jsonl has every row", reason(error)
            )


Sink = JsonlSink | WandbSink


def open_sinks(config: PretrainConfig) -> list[Sink]:
    """The sinks of a run. For rank 0 alone."""
    sinks: list[Sink] = [JsonlSink(Path(config.run_dir, "metrics.jsonl"))]
    if config.wandb.mode is not WandbMode.disabled:
        sinks.append(WandbSink(config))
    return sinks


def wandb_login_missing(config: PretrainConfig) -> bool:
    """Whether W&B is asked to be online without a login, which would wait for an answer at the keyboard."""
    if config.wandb.mode is not WandbMode.online:
        return False
    import wandb

    return not wandb.login(prompt=False)
