"""The configuration of eval.compare."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from conf.checks import at_least, ends_in
from conf.strict import Retired
from eval.config import MachineConfig


@dataclass(kw_only=True)
class CompareConfig:
    """Set the texts of autoregressive decoding, self-speculation and early exit side by side, greedily."""

    RETIRED: ClassVar[Retired] = {"max_prompts": "n_samples", "exit_layer": "the first of exit_layers"}

    checkpoint: str = MISSING
    """A run folder, one of its checkpoints, a Hugging Face folder, a .gguf file or hf://org/name."""
    prompt: str | None = None
    """The text to continue, taken as it is; null: from prompt_file."""
    prompt_file: str = "-"
    """A UTF-8 text file that is one prompt; a .jsonl with a prompt in each line; `-` is standard input."""
    chat: bool = False
    """Ask prompts as a user's turn in the model's own chat template."""
    n_samples: int = 8
    """Prompts that are taken from a .jsonl with more: the first ones."""
    exit_layers: list[int] = dataclasses.field(default_factory=list)
    """Layers of the early exits, the first of which drafts in self-speculation; empty: an eighth, three sixteenths, a
    quarter and a half of all, and the fastest of the checkpoint's benchmark, else a quarter, drafts."""
    num_speculations: int | None = None
    """Tokens drafted per round; null: the fastest in the checkpoint's benchmark, else 3."""
    max_new_tokens: int = 96
    """At most so many tokens for each text."""
    ignore_eos: bool = False
    """Go on after the end-of-text token."""
    output: str | None = None
    """The page, a .html; null: compare_TEXT.html in the checkpoint's folder, with the keys that are not the default."""
    field: str = "prompt"
    """The field of a .jsonl's lines with the prompt: a text, or a list of turns, of which the first is asked."""
    machine: MachineConfig = dataclasses.field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        at_least(1, self, "n_samples", "max_new_tokens")
        ends_in(".html", self, "output")
