"""The configuration of eval.compare."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from conf.checks import at_least, ends_in
from eval.config import MachineConfig


@dataclass(kw_only=True)
class CompareConfig:
    """Set the texts of full depth, self-speculation and early exit side by side, greedily."""

    checkpoint: str = MISSING
    """A run folder, one of its checkpoints, a Hugging Face folder or a .gguf file."""
    prompt: str | None = None
    """The text to continue, taken as it is; null: from prompt_file."""
    prompt_file: str = "-"
    """A UTF-8 text file that is one prompt; a .jsonl with a prompt in each line; `-` is standard input."""
    chat: bool = False
    """Ask prompts as a user's turn in the model's own chat template."""
    max_prompts: int = 8
    """Of a .jsonl with more only the first so many."""
    exit_layers: list[int] = field(default_factory=list)
    """Layers of the early exits; empty: an eighth, three sixteenths, a quarter and a half of all."""
    exit_layer: int | None = None
    """Layers that draft in self-speculation; null: the fastest in the checkpoint's benchmark, else a third."""
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
    machine: MachineConfig = MISSING

    def __post_init__(self) -> None:
        at_least(1, self, "max_prompts", "max_new_tokens")
        ends_in(".html", self, "output")
