"""What a run reads, and how it is tokenized, held out and packed."""

from dataclasses import dataclass, field
from enum import StrEnum

from omegaconf import MISSING

from conf.checks import at_least, at_most
from conf.errors import UserError
from conf.hub import HUB

MOST_PIECES = 2**24
"""Of a tokenizer that is trained; fifty times as many as the largest in use have."""
MOST_LANES = 2**16
"""Of a stream; each has a place in every checkpoint."""


class DataError(UserError, ValueError):
    """Bad input data: one line that names the file (and line) and the remedy."""


class OnError(StrEnum):
    """What a record that cannot be read does."""

    stop = "stop"
    skip = "skip"


class Packing(StrEnum):
    """How documents become rows of train.seq_len tokens."""

    concat = "concat"
    """One after another, cut wherever a row ends."""
    best_fit = "best_fit"
    """Documents that fit into a row stay whole; rows are filled up with those that fit best."""


class Format(StrEnum):
    """What a record is."""

    text = "text"
    """A document in `text_field`."""
    prompt_completion = "prompt_completion"
    """`prompt_field` and `completion_field`; the loss is on the completion alone."""
    topv2 = "topv2"
    """A row of TOPv2's .tsv files: utterance, and its parse as published (data/sources/topv2.py)."""
    topv2_json = "topv2_json"
    """A row of TOPv2 whose parse is written as JSON."""


@dataclass(kw_only=True)
class SourceConfig:
    """One place that text comes from. Bare names and paths are of this machine, hf:// names are of the hub."""

    path: str = MISSING
    """`stdlib`; site-packages:NAME, the source code of an installed package; a file, folder or glob of .txt, .md, .py,
    .jsonl, .tsv (each also .gz or .zst) or .parquet; a folder that data.prepare has written; hf://org/name, which
    `datasets` reads (hf:///folder: its local files); or my_package.mine:name, a function without arguments that gives
    texts or rows of token ids, one document each."""
    format: Format = Format.text
    """text, prompt_completion, topv2 or topv2_json."""
    text_field: str = "text"
    """The field (column) of a record that holds the text."""
    prompt_field: str = "prompt"
    """The field (column) that holds the prompt, for prompt_completion."""
    completion_field: str = "completion"
    """The field (column) that holds the completion, for prompt_completion."""
    weight: float | None = None
    """Share of the training tokens, relative to the other sources. null for all: their sizes, times `epochs`."""
    epochs: float | None = None
    """The most passes over the source; null: as many as it takes. A run that would need more is refused."""
    validation: str | None = None
    """Where held-out text is (for hf://: the split). null: data.validation_fraction of the source itself, or, from a
    stream, its first data.validation_documents."""
    subset: str | None = None
    """hf:// only: which of a data set's configurations."""
    split: str = "train"
    """hf:// only."""
    revision: str | None = None
    """hf:// only: a commit, so that the data cannot change."""
    streaming: bool = False
    """hf:// only: tokenize while training instead of first."""

    def __post_init__(self) -> None:
        if self.weight is not None and not self.weight > 0.0:
            raise ValueError(f"weight={self.weight}: a source's weight must be above 0")
        if self.epochs is not None and not self.epochs > 0.0:
            raise ValueError(f"epochs={self.epochs}: a source's epochs must be above 0")
        if not self.path.removeprefix(HUB).strip("/"):
            raise ValueError(
                f"path={self.path}: names nothing; hf://org/name, or hf:///folder for files of this machine"
            )
        if self.streaming and not self.path.startswith(HUB):
            raise ValueError(f"streaming=true: only of hf:// sources, not of {self.path}")


@dataclass(kw_only=True)
class TokenizerConfig:
    """A tokenizer that exists, or a SentencePiece model trained on the run's own training text."""

    path: str | None = None
    """A SentencePiece .model, a tokenizer.json, Llama 3's tiktoken file, or a folder with one of them. null: that of
    prepared shards, or one trained on the training text and cached."""
    vocab_size: int = MISSING
    """Pieces of a tokenizer that is trained; the presets take model.vocab_size."""
    max_train_megabytes: int = 16
    """How much of the training text the tokenizer is trained on, sampled over all of it."""

    def __post_init__(self) -> None:
        # 256 byte pieces, <unk>, <s>, </s>, and room for something to learn.
        if self.path is None and self.vocab_size < 300:
            raise ValueError(f"tokenizer.vocab_size={self.vocab_size}: must be at least 300 (256 of them are bytes)")
        if self.path is None:
            at_most(MOST_PIECES, self, "vocab_size", section="tokenizer.")
        at_least(1, self, "max_train_megabytes", section="tokenizer.")


@dataclass(kw_only=True)
class DataConfig:
    """A corpus: where the text is, what is held out, how it is packed, and where tokens are cached."""

    name: str = MISSING
    """Short name, for logs."""
    source: str | None = MISSING
    """For the choices of one source of your own (data=text, shards, topv2, ...): its path."""
    text_field: str = "text"
    """For data=text: the field (column) of a record that holds the text; for others it is
    data.sources.NAME.text_field."""
    sources: dict[str, SourceConfig] = field(default_factory=dict)
    """Name -> source. Several make a mixture by their weights."""
    packing: Packing = Packing.concat
    """concat or best_fit."""
    attend_across_documents: bool | None = None
    """Whether tokens attend to other documents of their row; null: where not all sources are records of a prompt and a
    completion, which are evaluated one by one."""
    validation_fraction: float = 0.05
    """Share of the text held out for validation, by whole documents."""
    validation_documents: int = 500
    """How many documents of a stream are held out."""
    on_error: OnError = OnError.stop
    """What an unreadable record does: stop, or skip (they are counted and named, at most max_errors)."""
    max_errors: int = 100
    """With on_error=skip: more than this stops."""
    cache_dir: str = "outputs/cache"
    """Tokenizers and prepared tokens, keyed by what they were made from; safe to delete."""
    num_workers: int = 0
    """Processes that read rows ahead; 0 reads in the training process (enough for prepared tokens)."""
    stream_lanes: int = 16
    """Into how many lanes streams are dealt; for no double reading a multiple of ranks x num_workers."""
    tokenizer: TokenizerConfig = MISSING

    def __post_init__(self) -> None:
        if not 0.0 < self.validation_fraction < 1.0:
            raise ValueError(f"data.validation_fraction={self.validation_fraction}: must lie between 0 and 1")
        at_least(0, self, "num_workers", "max_errors", section="data.")
        at_least(1, self, "validation_documents", "stream_lanes", section="data.")
        at_most(MOST_LANES, self, "stream_lanes", section="data.")
        if not self.sources:
            raise ValueError("data.sources: empty; name at least one, or take data=text data.source=PATH")
        if self.source is not None and not any(self.source in source.path for source in self.sources.values()):
            raise ValueError(
                f"data.source={self.source}: data={self.name} does not read it; take data=text data.source=PATH (or"
                " data=shards, topv2, ...)"
            )
        if self.text_field not in {"text", *(source.text_field for source in self.sources.values())}:
            name = next(iter(self.sources))
            raise ValueError(
                f"data.text_field={self.text_field}: belongs to data=text; set data.sources.{name}.text_field"
            )
        with_weight = [name for name, source in self.sources.items() if source.weight is not None]
        if with_weight and len(with_weight) < len(self.sources):
            missing = ", ".join(sorted(set(self.sources) - set(with_weight)))
            raise ValueError(f"data.sources: weight is missing for {missing}; give it for all sources or for none")
        streams = [name for name, source in self.sources.items() if source.streaming]
        if streams and len(self.sources) > 1 and not with_weight:
            raise ValueError(f"data.sources.{streams[0]}: a stream has no known size; give every source a weight")
        if streams and self.packing is Packing.best_fit:
            raise ValueError(f"data.packing=best_fit: not for streams (data.sources.{streams[0]}); streaming=false")
