"""What `python -m data.prepare` is asked to do."""

from dataclasses import dataclass

from omegaconf import MISSING

from data.config import OnError, SourceConfig, TokenizerConfig

SHARD_TOKENS = 1 << 26


@dataclass(kw_only=True)
class PrepareConfig:
    """A source, a tokenizer, and where the shards go."""

    dataset: SourceConfig = MISSING
    """What is read: a choice of the group (dataset=fineweb_edu), or text of your own (dataset.path=FOLDER)."""
    output: str = MISSING
    """Folder for the shards. The same command again finishes what a kill has left unfinished."""
    tokenizer: TokenizerConfig = MISSING
    """path: of one that exists; null: train a SentencePiece model of `vocab_size` pieces on the source."""
    validation_fraction: float = 0.05
    """Share of the text held out, by whole documents, as much as training holds out of text; 0: none."""
    on_error: OnError = OnError.stop
    """What an unreadable record does: stop, or skip (they are counted and named, at most max_errors)."""
    max_errors: int = 100
    """With on_error=skip: more than this stops."""
    workers: int | None = None
    """Processes; null: one per core."""
    shard_tokens: int = SHARD_TOKENS
    """Training tokens after which a shard is closed."""
    fresh: bool = False
    """Delete the shards that the folder holds, finished or not, and prepare anew; false: go on with them."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.validation_fraction < 1.0:
            raise ValueError(f"validation_fraction={self.validation_fraction}: must be at least 0 and below 1")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers={self.workers}: must be at least 1")
        for key, least in (("max_errors", 0), ("shard_tokens", 1)):
            if getattr(self, key) < least:
                raise ValueError(f"{key}={getattr(self, key)}: must be at least {least}")
