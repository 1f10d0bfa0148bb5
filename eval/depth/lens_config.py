"""The configuration of eval.lens."""

from dataclasses import dataclass, field
from typing import ClassVar

from omegaconf import MISSING

from conf.checks import at_least, ends_in
from conf.strict import Retired
from eval.config import MachineConfig


@dataclass(kw_only=True)
class LensConfig:
    """See what every layer predicts at every position of a text."""

    RETIRED: ClassVar[Retired] = {"json": "the .json beside output, which is always written"}

    checkpoint: str = MISSING
    """A run folder, one of its checkpoints, a Hugging Face folder, a .gguf file or hf://org/name."""
    prompt: str | None = None
    """The text to look at, taken as it is; null: from prompt_file."""
    prompt_file: str = "-"
    """A UTF-8 text file; `-` is standard input."""
    max_new_tokens: int = 0
    """Continue the text greedily, with all layers, by at most so many tokens, and look at them as well."""
    top_k: int = 5
    """Tokens shown for each prediction."""
    max_positions: int = 256
    """Positions at the end of a longer text that are shown and counted; all of it is read."""
    output: str | None = None
    """The page, a .html, with the numbers as .json beside it; null: lens_TEXT.html in the checkpoint's folder, with the
    keys that are not the default."""
    machine: MachineConfig = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        at_least(0, self, "max_new_tokens")
        at_least(1, self, "top_k", "max_positions")
        ends_in(".html", self, "output")
        self.machine.refuse_draft_vocab("has no effect, because nothing is drafted")
