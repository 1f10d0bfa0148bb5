"""The configuration of eval.perplexity."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from eval.config import MachineConfig


@dataclass(kw_only=True)
class PerplexityConfig:
    """How well every exit predicts a text."""

    checkpoint: str = MISSING
    """A run folder, one of its checkpoints, a Hugging Face folder or a .gguf file."""
    source: str | None = None
    """The text: a file, folder or glob of .txt, .md, .py, .jsonl or .parquet, or hf://org/name; null: the run's own
    held-out text."""
    exit_layers: list[int] = field(default_factory=list)
    """Which exits; empty: all. The last layer is always among them, because the others are compared with it."""
    seq_len: int | None = None
    """Tokens of a window; null: the run's train.seq_len, or else the model's context."""
    stride: int | None = None
    """Tokens from one window to the next; null: seq_len, as in training. With fewer the windows overlap, each token is
    predicted in the first that has it, and has at least seq_len - stride tokens of context; it takes longer."""
    max_tokens: int | None = None
    """Only as many tokens, in windows spread evenly over the text; null: all."""
    batch_size: int = 8
    """Windows in a pass."""
    output: str | None = None
    """Results as .json, with .csv and .png beside it; null: perplexity.json in the checkpoint's folder."""
    machine: MachineConfig = MISSING

    def __post_init__(self) -> None:
        for key, least in (("seq_len", 1), ("stride", 1), ("max_tokens", 1), ("batch_size", 1)):
            value = getattr(self, key)
            if value is not None and value < least:
                raise ValueError(f"{key}={value}: must be at least {least}")
        if self.output is not None and not self.output.endswith(".json"):
            raise ValueError(f"output={self.output}: must end in .json")
