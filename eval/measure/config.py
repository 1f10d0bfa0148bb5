"""The configuration of `eval.benchmark`."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from conf.checks import at_least, count_or_auto, ends_in
from eval.config import LAYERSKIP, DraftPolicy, ExitStates, MachineConfig, Mode
from eval.tasks.choices import Task


@dataclass(kw_only=True)
class BenchmarkConfig:
    """Measure the three modes against each other on the samples of a task."""

    checkpoint: str = MISSING
    """A run folder, one of its checkpoints, a Hugging Face folder, a .gguf file or hf://org/name."""
    task: Task = MISSING
    """What to decode and how to score it: a file of conf/task."""
    chat: bool = False
    """Ask prompts as a user's turn in the model's own chat template."""
    modes: list[Mode] = field(default_factory=lambda: list(LAYERSKIP))
    """What to measure; autoregressive always is, as what the others are compared with. prompt_lookup and draft_model
    are other sources of drafts, verified by all layers."""
    exit_layers: list[int] = field(default_factory=list)
    """Layers of draft and early exit; empty: the task's own shares of all layers."""
    num_speculations: list[int] = field(default_factory=list)
    """Tokens drafted per round; empty: the task's own."""
    policies: list[DraftPolicy] = field(default_factory=lambda: [DraftPolicy.fixed])
    """Who decides how self-speculation drafts. `fixed` and `confidence` are measured with each of exit_layers and
    num_speculations, `dynamic` once: it chooses among exit_layers where you name some."""
    exit_states: list[ExitStates] = field(default_factory=lambda: [ExitStates.reuse])
    """What verification does for drafted tokens below the exit; [reuse,recompute] is the paper's Table 7."""
    baseline: str | None = None
    """A second checkpoint, decoded autoregressively beside it: the paper's autoregressive rows."""
    batch_size: str = "1"
    """Texts decoded at the same time; `auto`: as many as fit into half of the free memory, at most 64."""
    compile: bool | None = False
    """Compile the passes, and replay them as CUDA graphs on a GPU; null: on a GPU. Compiling is not timed, and what it
    makes is kept in ~/.cache/layerskip-pretrain for the next time."""
    repeats: int = 1
    """Times that every prompt is decoded by every setting."""
    transformers: bool | None = None
    """Time transformers' generate beside ours, on the same weights and prompts; null: with task=held_out."""
    pass_samples: int = 16
    """On how many of the samples, evenly spaced, single passes are timed for `measured_cost_ideal`."""
    detail: bool = False
    """Print also the tables by group, by prompt length and by position in the output; they are always written."""
    recommend: bool = False
    """Let eval.generate decode with the fastest setting from now on (recommended.json in the checkpoint's folder); by
    itself it takes that of benchmark.json."""
    fresh: bool = False
    """Measure anew; false: go on with what an earlier start of the same settings has measured."""
    output: str | None = None
    """Results as .json, as .csv and by sample as .jsonl beside it; null: benchmark.json in the checkpoint's folder, or
    benchmark_TASK_KEY-VALUE.json when task and keys are not the default."""
    machine: MachineConfig = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        at_least(1, self, "repeats", "pass_samples")
        count_or_auto(self, "batch_size")
        for d in self.num_speculations:
            if d < 1:
                raise ValueError(f"num_speculations={d}: must be at least 1")
            if d >= self.task.limit:
                raise ValueError(f"num_speculations={d}: must be below task.max_new_tokens={self.task.limit}")
        if not self.policies:
            raise ValueError("policies: give fixed, confidence, dynamic or several of them")
        if not self.exit_states:
            raise ValueError("exit_states: give reuse, recompute or both")
        ends_in(".json", self, "output")
