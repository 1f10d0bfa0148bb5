"""What `python -m data.benchmark` is asked to do."""

from dataclasses import dataclass

from omegaconf import MISSING

from conf.checks import at_least, at_most, ends_in, fits_cores
from conf.machine import total_memory
from data.config import SourceConfig, TokenizerConfig

BYTES_OF_A_TEXT = 4
"""Memory for each of its bytes: the text twice, its tokens, and what is read ahead."""
BYTES_OF_A_TOKEN = 64
"""Memory for each token of a batch, with the batches that are read ahead."""


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
        ends_in(".json", self, "output")
        at_least(1, self, "max_megabytes", "batch_size", "rounds", "workers")
        at_least(8, self, "seq_len")
        at_least(0, self, "demo_steps")
        at_most(total_memory() // BYTES_OF_A_TEXT // 10**6, self, "max_megabytes")
        at_most(total_memory() // BYTES_OF_A_TOKEN // self.batch_size, self, "seq_len")
        fits_cores(self, "workers")
        if self.seconds <= 0.0:
            raise ValueError(f"seconds={self.seconds}: must be above 0")
