"""Weak scaling: runs of train.pretrain on more and more ranks of this machine, each with the same rows for a rank."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from omegaconf import MISSING

from conf.checks import at_least
from conf.errors import UserError
from conf.machine import usable_cores
from conf.provenance import code_revision, processor
from train.config import PretrainConfig
from train.cost.communication import collectives, mean_work, sent
from train.cost.facts import sampled_steps


class RunError(UserError):
    """A run that was to be measured has failed."""

    exit_status = 1


@dataclass(kw_only=True)
class ScalingOptions:
    """What to measure."""

    output: str = MISSING
    """A .json file; each run's folder with its last checkpoint is made beside it, and removed."""
    ranks: list[int] = field(default_factory=lambda: [1, 2, 4])
    """Numbers of ranks, ascending. The first is what the others are compared with."""
    steps: int = 20
    """Steps of each run that are measured."""
    warmup: int = 3
    """Steps of each run before, not counted."""
    threads: int = 1
    """CPU threads of a rank."""

    def __post_init__(self) -> None:
        if not self.ranks or self.ranks[0] < 1 or self.ranks != sorted(set(self.ranks)):
            raise ValueError(f"scaling.ranks={self.ranks}: must be numbers from 1 on, ascending")
        at_least(1, self, "steps", "threads", section="scaling.")
        at_least(0, self, "warmup", section="scaling.")


@dataclass(kw_only=True)
class ScalingConfig(PretrainConfig):
    """A run, and on how many ranks to measure it. train.local_batch_size is each rank's, whatever their number."""

    scaling: ScalingOptions = field(default_factory=ScalingOptions)


@dataclass(frozen=True, kw_only=True)
class ScalingRow:
    """What a number of ranks has reached. The keys of the output file are the names of the fields, in their order."""

    ranks: int
    processors: int
    """CPU cores, or GPUs, that the ranks have in all: no more than the machine has."""
    tokens_per_second: float
    """Of all ranks; median over the steps."""
    tokens_per_second_quartiles: tuple[float, float]
    efficiency: float
    """Tokens per second and processor, as a share of those of the first row."""
    sent_bytes: float
    """Bytes that a rank sends in a step, by the formula of train.describe."""
    load_before: float
    """The machine's load average of the last minute when the run began: what else was running, and the run before."""
    parallelism: str
    model: str
    rows_per_rank: int
    seq_len: int
    precision: str
    threads: int
    hardware: str
    torch: str
    commit: str


def measured_row(
    config: PretrainConfig, options: ScalingOptions, words: Sequence[str], ranks: int, folder: Path, base: float | None
) -> ScalingRow:
    """Run on so many ranks and read what the run has written.

    Args:
        config: resolved for that number of ranks.
        options: what to measure.
        words: overrides of the command line, for train.pretrain.
        ranks: how many.
        folder: an empty folder for the run.
        base: tokens per second and processor of the first row; None: this is it.
    """
    import torch

    from conf.metrics_file import METRICS, read_metrics

    load = os.getloadavg()[0]
    _run(config, options, words, ranks, folder)
    rows = [r for r in read_metrics(folder / METRICS) if "train/tokens_per_second" in r]
    speeds = sorted(r["train/tokens_per_second"] for r in rows if r["step"] > options.warmup)
    gpus = torch.cuda.device_count()
    processors = min(ranks, gpus or usable_cores() // options.threads or 1)
    speed = median(speeds)
    shared = config.parallelism
    return ScalingRow(
        ranks=ranks,
        processors=processors,
        tokens_per_second=speed,
        tokens_per_second_quartiles=(speeds[len(speeds) // 4], speeds[3 * len(speeds) // 4]),
        efficiency=1.0 if base is None else speed / processors / base,
        sent_bytes=sent(collectives(config, ranks, mean_work(config, sampled_steps(config)))),
        load_before=load,
        parallelism=f"replicate {shared.replicate}, tensor {shared.tensor}, context {shared.context}",
        model=config.model.name,
        rows_per_rank=config.train.local_batch_size or 0,
        seq_len=config.train.seq_len,
        precision=config.train.precision.value,
        threads=options.threads,
        hardware=torch.cuda.get_device_name() if gpus else processor(),
        torch=torch.__version__,
        commit=code_revision(),
    )


def _run(config: PretrainConfig, options: ScalingOptions, words: Sequence[str], ranks: int, folder: Path) -> None:
    steps = options.warmup + options.steps
    ours = [
        f"run_dir={folder}",
        f"train.steps={steps}",
        f"train.local_batch_size={config.train.local_batch_size}",
        f"train.global_batch_size={config.train.global_batch_size}",
        "train.log_every=1",
        f"validation.every={steps}",
        f"validation.final_tokens={config.train.seq_len}",
        f"checkpoint.every={steps}",
        "wandb.mode=disabled",
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    done = subprocess.run(
        [*torchrun, "-m", "train.pretrain", *words, *ours],
        env=os.environ | {"OMP_NUM_THREADS": str(options.threads)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        why = errors[0].removeprefix("error: ") if errors else f"the run ended with status {done.returncode}"
        raise RunError(f"scaling.ranks={ranks}: {why}")


def scaling_table(rows: Sequence[ScalingRow]) -> str:
    """The rows as text."""
    lines = [f"{'ranks':>5} {'processors':>10} {'tokens/s':>9} {'quartiles':>15} {'efficiency':>10} {'sent, MiB':>9}"]
    for row in rows:
        low, high = row.tokens_per_second_quartiles
        lines.append(
            f"{row.ranks:>5} {row.processors:>10} {row.tokens_per_second:>9,.0f} {f'{low:,.0f}-{high:,.0f}':>15}"
            f" {row.efficiency:>10.3f} {row.sent_bytes / 2**20:>9.3g}"
        )
    first = rows[0]
    return "\n".join([*lines, f"efficiency: of {first.ranks} rank's tokens/s for each processor; {first.hardware}"])
