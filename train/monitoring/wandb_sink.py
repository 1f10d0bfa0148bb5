"""A W&B run whose id lies in the run folder, so that a continued run continues it, without a step twice or missing."""

import logging
import os
import re
import sys
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from conf.errors import reason
from conf.metrics_file import METRICS, read_metrics
from conf.provenance import COPIED, ROOT, code_revision
from train.config import PretrainConfig, WandbMode
from train.errors import PREEMPTED
from train.monitoring.wandb_charts import over_depth, over_steps
from train.monitoring.wandb_files import Taken, cut_back

logger = logging.getLogger(__name__)

ONE_OF_MANY = re.compile(r".*/(exit_\d+|layer_\d+|rest)")
"""Metrics that are not drawn by themselves: charts of all exits or layers stand for them."""
STAGING_GIVEN = "WANDB_DATA_DIR" in os.environ


class WandbSink:
    """Writes to W&B what it does not have yet; metrics.jsonl has everything.

    W&B may lack the last rows before a kill, which it had not written, and those after its own process ended: with
    SIGTERM, which Slurm sends to all processes of a job. They are sent when the run goes on.
    """

    def __init__(self, config: PretrainConfig, first_step: int) -> None:
        folder = Path(config.run_dir)
        id_file = folder / "wandb_id"
        known = id_file.exists()
        if not known:
            id_file.write_text(uuid.uuid4().hex[:8])
        run_id = id_file.read_text().strip()
        taken = cut_back(folder / "wandb", run_id, first_step)
        self._run = _start(config, run_id, first_step, bool(taken and taken.later))
        if config.wandb.mode is WandbMode.online:
            code = taken.code if taken else frozenset()
            taken = Taken(self._run.starting_step - 1, frozenset(), self._run.starting_step - 1, code)
        elif taken is None:  # `wandb clean` deletes what has been synced
            taken = Taken(first_step if known else 0, frozenset(), 0, frozenset())
        self._has_until = max(taken.step, taken.later)
        if taken.later > first_step:
            logger.warning(
                "W&B: steps %d to %d are on the server already, and stay there as they are", first_step + 1, taken.later
            )
        self._processes = _children("wandb-core")
        self._broken = False
        self._drawn, self._defined = 0, {"step"}
        self._try(partial(self._run.define_metric, "step", hidden=True), "the x axis")
        revision = code_revision()
        if revision not in taken.code or not re.fullmatch("[0-9a-f]+", revision):  # changes are part of no revision
            self._try(partial(self._run.log_code, str(ROOT), name="layerskip", include_fn=_is_code), "the code")
        metrics = folder / METRICS
        for row in read_metrics(metrics) if metrics.exists() else []:
            lacks = row.keys() - taken.keys - {"step"} if taken.keys else set()
            if row["step"] > taken.step or (row["step"] == taken.step and lacks):
                self._log(row["step"], row if row["step"] > taken.step else {key: row[key] for key in lacks})

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log a row at a step. What W&B cannot take is a warning; metrics.jsonl has it for the next start."""
        if step > self._has_until:
            self._log(step, metrics)

    def show(self, rows: Sequence[dict[str, Any]], picture: Path | None, *, last: bool) -> None:
        """Log the charts after a validation, and perplexity by exit as a picture.

        Charts over steps have tables of a thousand rows, so they are drawn anew when there is a tenth more to be seen.

        Args:
            rows: of metrics.jsonl, the validation's last.
            picture: a PNG; None where it could not be drawn.
            last: whether no more validations follow.
        """
        n = sum("val/tokens" in row for row in rows)
        step = max(row["step"] for row in rows)
        if step <= self._has_until:
            return

        def log() -> None:
            import wandb

            charts: dict[str, Any] = dict(over_depth(rows))
            if last or n >= 1.1 * self._drawn:
                charts |= dict(over_steps(rows))
                self._drawn = n
            if picture is not None:
                charts["by_exit/perplexity"] = wandb.Image(str(picture))
            self._run.log(charts, step=step)

        self._try(log, "the charts")

    def close(self, exit_status: int) -> None:
        """Finish the run: W&B calls it finished for 0, preempted for PREEMPTED, and else failed."""

        def finish() -> None:
            if exit_status == PREEMPTED:
                self._run.mark_preempting()
            self._run.finish(exit_code=exit_status)

        def attempt() -> None:
            self._try(finish)

        # Without its process W&B would wait for ever.
        ending = threading.Thread(target=attempt, daemon=True)
        ending.start()
        while ending.is_alive() and not self._is_gone():
            ending.join(0.2)

    def _log(self, step: int, metrics: Mapping[str, float]) -> None:
        def log() -> None:
            # One by one: of two globs that match a name W&B takes any.
            for name in sorted(metrics.keys() - self._defined):
                self._run.define_metric(name, step_metric="step", hidden=ONE_OF_MANY.fullmatch(name) is not None)
            self._defined |= metrics.keys()
            self._run.log({**metrics, "step": step}, step=step)

        self._try(log)

    def _is_gone(self) -> bool:
        return any(_state(pid) in "ZX" for pid in self._processes)

    def _try(self, action: Callable[[], object], dispensable: str | None = None) -> None:
        """Do something with W&B, unless it has failed before. Training goes on in any case.

        Args:
            action: what to do.
            dispensable: what it is about, if W&B can be without; None: after a failure nothing more is sent, so that
                no row is missing in between.
        """
        try:
            if not self._broken and self._is_gone():
                raise ChildProcessError("its process has ended")
            if not self._broken:
                action()
        except Exception as error:  # wandb has no list of what it raises
            if dispensable and not self._is_gone():
                logger.warning("W&B: %s: %s", dispensable, reason(error))
                return
            self._broken = True
            sys.unraisablehook = lambda _: None  # what W&B does at exit fails as well
            logger.warning("W&B: %s; the rows from here on follow when the run goes on", reason(error))


def _start(config: PretrainConfig, run_id: str, first_step: int, has_later: bool) -> Any:
    """Begin or continue the run; online, one that has rows of later steps is rewound if the server allows it."""
    import wandb  # slow to import, and not needed in every run

    options, revision = config.wandb, code_revision()
    if not STAGING_GIVEN:  # in the home folder otherwise, where it stays until it is synced
        os.environ["WANDB_DATA_DIR"] = str(Path(config.run_dir, "wandb").absolute())

    def start(**how: Any) -> Any:
        settings = wandb.Settings(silent=options.mode is not WandbMode.online)
        # A snapshot of the code is no checkout, which W&B would look at.
        if commit := re.match(r"[0-9a-f]{40}", revision):
            settings.git_commit = commit[0]
        return wandb.init(
            mode=options.mode.value,
            project=options.project,
            entity=options.entity,
            name=options.name or Path(config.run_dir).name,
            group=options.group,
            tags=options.tags,
            dir=str(config.run_dir),
            config=asdict(config) | {"revision": revision},
            settings=settings,
            **how,
        )

    if has_later and options.mode is WandbMode.online:
        try:
            return start(resume_from=f"{run_id}?_step={first_step}")
        except Exception as error:  # as not every server rewinds runs
            logger.warning("W&B: the run cannot be rewound to step %d (%s)", first_step, reason(error))
            wandb.teardown()  # its process still takes the run for one that is going on
    return start(id=run_id, resume="allow")


def _is_code(path: str, root: str) -> bool:
    parts = Path(path).relative_to(root).parts
    return parts[0] in COPIED and "__pycache__" not in parts


def _children(name: str) -> list[int]:
    """Ids of this process's children that bear a name; none where there is no /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            comm, parent = re.fullmatch(r"\d+ \((.*)\) \w (\d+) .*", stat.read_text().strip()).groups()  # type: ignore[union-attr]
        except (OSError, AttributeError):  # it has ended
            continue
        if (comm, int(parent)) == (name, os.getpid()):
            found.append(int(stat.parent.name))
    return found


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "X"
