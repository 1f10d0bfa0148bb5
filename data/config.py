"""What a run reads, and how it is tokenized."""

from dataclasses import dataclass

from omegaconf import MISSING


class DataError(ValueError):
    """Bad input data, told in one line that names the file (and line) and the remedy."""


@dataclass(kw_only=True)
class TokenizerConfig:
    """A SentencePiece model: one that exists, or one trained on the run's own training text."""

    path: str | None = None
    """A SentencePiece .model file; null: train one on the training text and cache it."""
    vocab_size: int = MISSING
    """Pieces of a tokenizer that is trained; the presets take model.vocab_size."""
    max_train_megabytes: int = 16
    """How much of the training text the tokenizer is trained on, evenly sampled by document."""

    def __post_init__(self) -> None:
        # 256 byte pieces, <unk>, <s>, </s>, and room for something to learn.
        if self.path is None and self.vocab_size < 300:
            raise ValueError(
                f"data.tokenizer.vocab_size={self.vocab_size}: must be at least 300 (256 of them are bytes)"
            )
        if self.max_train_megabytes < 1:
            raise ValueError(f"data.tokenizer.max_train_megabytes={self.max_train_megabytes}: must be at least 1")


@dataclass(kw_only=True)
class DataConfig:
    """A corpus: where the text is, what is held out, and where tokens are cached."""

    name: str = MISSING
    """Short name, for logs."""
    source: str = MISSING
    """`stdlib` (the source of Python's standard library), or a file, folder or glob of .txt, .md, .py or .jsonl."""
    text_field: str = "text"
    """The field of a .jsonl record that holds the text."""
    validation_fraction: float = 0.05
    """Share of the bytes held out for validation, by whole documents."""
    cache_dir: str = "outputs/cache"
    """Tokenizers and token files, keyed by what they were made from; safe to delete."""
    num_workers: int = 0
    """Processes that read rows ahead; 0 reads in the training process (rows come from a memory map)."""
    tokenizer: TokenizerConfig = MISSING

    def __post_init__(self) -> None:
        if not 0.0 < self.validation_fraction < 1.0:
            raise ValueError(f"data.validation_fraction={self.validation_fraction}: must lie between 0 and 1")
        if self.num_workers < 0:
            raise ValueError(f"data.num_workers={self.num_workers}: must be at least 0")
