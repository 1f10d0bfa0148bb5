"""The configuration of `eval.sweep`, and the grid that it takes by itself."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from eval.config import DraftPolicy, MachineConfig
from eval.measure.config import BenchmarkConfig
from eval.tasks.choices import Task

AGREEMENT = "equal_prefix"
"""Quality where a task scores nothing: the share of autoregressive decoding's text before the first token that
differs."""
LESS_IS_BETTER = {"malformed"}
EXITS = 8
DRAFTS_TO_SWEEP = (1, 2, 3, 4, 6, 8, 12)


@dataclass(kw_only=True)
class SweepConfig:
    """Measure every exit with every number of drafts."""

    checkpoint: str = MISSING
    """A run folder, one of its checkpoints, a Hugging Face folder, a .gguf file or hf://org/name."""
    task: Task = MISSING
    """What to decode and how to score it: a file of conf/task."""
    exit_layers: list[int] = field(default_factory=list)
    """E; empty: the lower half of the layers, at most 8 of them, evenly spaced."""
    num_speculations: list[int] = field(default_factory=list)
    """d; empty: 1, 2, 3, 4, 6, 8, 12."""
    policy: DraftPolicy = DraftPolicy.fixed
    """Who ends a draft: `fixed` drafts num_speculations tokens, `confidence` at most as many."""
    quality: str | None = None
    """What stands for quality beside speed: a metric of the task, or `equal_prefix`, the share of autoregressive
    decoding's text before the first token that differs; null: pass@1, exact_match or rouge2, whichever the task has,
    else equal_prefix."""
    repeats: int = 1
    """Times that every prompt is decoded by every setting."""
    recommend: bool = False
    """Let eval.generate decode with the fastest setting from now on (recommended.json in the checkpoint's folder)."""
    fresh: bool = False
    """Measure anew; false: go on with what an earlier start of the same settings has measured."""
    output: str | None = None
    """Rows as .json, as .csv, by sample as .jsonl and as plots beside it; null: sweep.json in the checkpoint's
    folder, or sweep_TASK_KEY-VALUE.json when task and keys are not the default."""
    machine: MachineConfig = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        if self.policy is DraftPolicy.dynamic:
            raise ValueError("policy=dynamic: chooses exit and drafts itself; measure it with eval.benchmark")
        # It has its own conditions.
        self.benchmark(self.exit_layers, self.num_speculations or drafts_to_sweep(self.task.limit), self.output)
        allowed = [name for name in (*self.task.table_metrics, AGREEMENT) if name not in LESS_IS_BETTER]
        if self.quality is not None and self.quality not in allowed:
            raise ValueError(f"quality={self.quality}: must be {' or '.join(allowed)}")

    def benchmark(self, exit_layers: list[int], num_speculations: list[int], output: str | None) -> BenchmarkConfig:
        """The measurement of a grid. Raises ValueError for one that cannot be made."""
        return BenchmarkConfig(
            checkpoint=self.checkpoint,
            task=self.task,
            exit_layers=exit_layers,
            num_speculations=num_speculations,
            policies=[self.policy],
            repeats=self.repeats,
            transformers=False,
            pass_samples=1,
            fresh=self.fresh,
            output=output,
            machine=self.machine,
        )


def exits_to_sweep(n_layers: int) -> list[int]:
    """The lower half, or EXITS of it, evenly spaced up to the middle."""
    half = max(1, n_layers // 2)
    n = min(EXITS, half)
    return [-(-half * i // n) for i in range(1, n + 1)]


def drafts_to_sweep(max_new_tokens: int) -> list[int]:
    """The numbers of DRAFTS that are shorter than the text."""
    return [d for d in DRAFTS_TO_SWEEP if d < max_new_tokens] or [1]
