"""The configuration of eval.perplexity."""

from dataclasses import dataclass, field
from typing import ClassVar

from omegaconf import MISSING

from conf.checks import at_least, count_or_auto, ends_in
from eval.config import MachineConfig


@dataclass(kw_only=True)
class PerplexityConfig:
    """How well every exit predicts a text."""

    WITHOUT_EFFECT: ClassVar[tuple[str, ...]] = ("batch_size",)

    checkpoint: str = MISSING
    """A run folder, one of its checkpoints, a Hugging Face folder, a .gguf file or hf://org/name."""
    source: str | None = None
    """The text: a file, folder or glob of .txt, .md, .py, .jsonl or .parquet, or hf://org/name; null: the run's own
    held-out text."""
    text_field: str = "text"
    """The field (column) of the source's records that holds the text."""
    exit_layers: list[int] = field(default_factory=list)
    """Which exits; empty: all. The last layer is always among them, because the others are compared with it."""
    seq_len: int | None = None
    """Tokens of a window; null: the run's train.seq_len, or else the model's context."""
    stride: int | None = None
    """Tokens from one window to the next; null: seq_len, as in training. With fewer the windows overlap, each token is
    predicted in the first that has it, and has at least seq_len - stride tokens of context; it takes longer."""
    max_tokens: int | None = None
    """Only as many tokens, in windows spread evenly over the text; null: all."""
    batch_size: str = "8"
    """Windows in a pass; `auto`: as many as fit into half of the free memory, at most 64."""
    output: str | None = None
    """Results as .json, with .csv and .png beside it; null: perplexity.json in the checkpoint's folder, or
    perplexity_KEY-VALUE.json when keys are not the default."""
    machine: MachineConfig = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        at_least(1, self, "seq_len", "stride", "max_tokens")
        count_or_auto(self, "batch_size")
        ends_in(".json", self, "output")
        self.machine.refuse_draft_vocab("has no effect, because nothing is drafted")
