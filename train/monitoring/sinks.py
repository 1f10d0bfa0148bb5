"""Where metrics go besides the console: metrics.jsonl in the run folder, and W&B."""

import json
import uuid
from dataclasses import asdict
from pathlib import Path

from train.config import PretrainConfig, WandbMode
from train.errors import PREEMPTED


class JsonlSink:
    """One JSON object per line, written through at once."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("a")

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Append a row."""
        self._stream.write(json.dumps({"step": step, **metrics}) + "\n")
        self._stream.flush()

    def close(self, exit_status: int) -> None:
        """Close the file."""
        self._stream.close()


class WandbSink:
    """A W&B run whose id lies in the run folder, so that a continued run continues it."""

    def __init__(self, config: PretrainConfig) -> None:
        import wandb  # slow to import, and not wanted in every run

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

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Log a row at a step."""
        self._run.log(metrics, step=step)

    def close(self, exit_status: int) -> None:
        """Finish the run: W&B calls it finished for 0, preempted for PREEMPTED, and else failed."""
        if exit_status == PREEMPTED:
            self._run.mark_preempting()
        self._run.finish(exit_code=exit_status)


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
