"""The configuration of `eval.rejections`."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from conf.checks import at_least, ends_in
from eval.config import MachineConfig
from eval.drafts.classes import Language
from eval.tasks.choices import Task


@dataclass(kw_only=True)
class RejectionsConfig:
    """See which drafted tokens the full model rejects."""

    checkpoint: str = MISSING
    """A run folder, one of its checkpoints, a Hugging Face folder, a .gguf file or hf://org/name."""
    task: Task = MISSING
    """What to decode: a file of conf/task."""
    exit_layer: int | None = None
    """Layers of the draft; null: the fastest in the checkpoint's benchmark, else the task's first."""
    num_speculations: int | None = None
    """Tokens drafted per round; null: the fastest in the checkpoint's benchmark, else the task's first."""
    language: Language = Language.auto
    """What words are: Python's keywords and identifiers (code), or words (prose)."""
    detail: bool = False
    """Print every table; all of them are always written."""
    fresh: bool = False
    """Decode anew; false: go on with what an earlier start of the same settings has decoded."""
    output: str | None = None
    """Results as .json, as .csv and .png and by sample as .jsonl beside it; null: rejections.json in the checkpoint's
    folder, or rejections_TASK_KEY-VALUE.json when task and keys are not the default."""
    machine: MachineConfig = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        at_least(1, self, "num_speculations")
        ends_in(".json", self, "output")
        self.machine.refuse_draft_vocab("drafts are looked at that are chosen from all tokens")
