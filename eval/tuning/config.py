"""The configuration of `eval.autotune`."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from conf.checks import at_least, ends_in
from eval.config import DraftPolicy, MachineConfig
from eval.measure.config import BenchmarkConfig
from eval.tasks.choices import Task


@dataclass(kw_only=True)
class AutotuneConfig:
    """Find the exit layer and the number of drafts that decode fastest, and let eval.generate use them."""

    checkpoint: str = MISSING
    """A run folder, one of its checkpoints, a Hugging Face folder, a .gguf file or hf://org/name."""
    task: Task = MISSING
    """Whose prompts are continued: a file of conf/task. A few samples are enough."""
    chat: bool = False
    """Ask prompts as a user's turn in the model's own chat template."""
    candidates: int = 4
    """So many of the settings that are predicted to be the fastest are decoded with."""
    policies: list[DraftPolicy] = field(default_factory=lambda: list(DraftPolicy))
    """Who decides how self-speculation drafts: besides fixed settings, `confidence` is decoded with at the best exit,
    and `dynamic`."""
    repeats: int = 2
    """Times that every prompt is decoded by every candidate."""
    output: str | None = None
    """Predictions and measurements as .json, as a heat map .png and by sample as .jsonl beside it; null: autotune.json
    in the checkpoint's folder, or autotune_TASK_KEY-VALUE.json when task and keys are not the default."""
    machine: MachineConfig = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        at_least(1, self, "candidates", "repeats")
        ends_in(".json", self, "output")
        if DraftPolicy.fixed not in self.policies:
            raise ValueError("policies: must have fixed, whose settings are predicted and compared")

    def benchmark(self, output: str) -> BenchmarkConfig:
        """The measurement of the candidates; its caller says which they are."""
        return BenchmarkConfig(
            checkpoint=self.checkpoint,
            task=self.task,
            chat=self.chat,
            transformers=False,
            pass_samples=1,
            repeats=self.repeats,
            fresh=True,
            output=output,
            machine=self.machine,
        )
