"""What `python -m data.benchmark` is asked to do."""

from dataclasses import dataclass

from omegaconf import MISSING

from data.config import SourceConfig, TokenizerConfig


@dataclass(kw_only=True)
class DataBenchmarkConfig:
    """What is read, how long, and where the figures go."""

    output: str = MISSING
    """A .json file."""
    dataset: SourceConfig = MISSING
    """What is tokenized and read; by default the standard library's source code."""
    tokenizer: TokenizerConfig = MISSING
    """path: of one that exists; null: train a SentencePiece model of `vocab_size` pieces on the data."""
    max_megabytes: int = 32
    """How much of the data is used."""
    seq_len: int = 2048
    """Tokens of a row."""
    batch_size: int = 8
    """Rows of a batch."""
    rounds: int = 5
    """How often everything is measured; figures are medians, ratios those of the same round."""
    seconds: float = 2.0
    """How long a loader is read in a round."""
    workers: int | None = None
    """Processes that tokenize; null: one per core."""
    demo_steps: int = 40
    """Steps of the demo in which the wait for data is measured; 0 leaves that out."""

    def __post_init__(self) -> None:
        for key, least in (("max_megabytes", 1), ("seq_len", 8), ("batch_size", 1), ("rounds", 1), ("demo_steps", 0)):
            if getattr(self, key) < least:
                raise ValueError(f"{key}={getattr(self, key)}: must be at least {least}")
        if self.seconds <= 0.0:
            raise ValueError(f"seconds={self.seconds}: must be above 0")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers={self.workers}: must be at least 1")
