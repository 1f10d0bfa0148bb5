"""From a corpus to a run's batches: packing, mixture and loader, and whether there is enough text."""

from collections.abc import Sequence
from typing import NamedTuple

from filelock import FileLock

from data.batches.loader import Loader
from data.batches.mixture import Mixture
from data.batches.packing import BestFitRows, ConcatRows, Rows
from data.batches.stream import Stream
from data.config import DataConfig, DataError, Format, Packing
from data.corpus import Corpus
from data.prepared.shards import Tokens


def training_rows(tokens: Tokens, corpus: Corpus, config: DataConfig, seq_len: int) -> Rows:
    """Tokens packed as the configuration says."""
    if config.packing is Packing.concat:
        return ConcatRows(tokens, seq_len)
    plan = corpus.cache_dir / f"best_fit-{tokens.fingerprint()}-{seq_len}"
    with FileLock(f"{plan}.lock"):
        return BestFitRows(tokens, seq_len, plan)


def _packed(corpus: Corpus, config: DataConfig, seq_len: int) -> list[Rows | Stream]:
    return [
        s.content if isinstance(s.content, Stream) else training_rows(s.content, corpus, config, seq_len)
        for s in corpus.sources
    ]


class Records(NamedTuple):
    """How documents fill rows."""

    n_records: int
    """Training documents of all sources."""
    n_rows: int
    """Rows that hold them all once."""
    per_row: float
    """Documents in a row of a run, on average over the sources as they are mixed."""


def count_records(corpus: Corpus, config: DataConfig, seq_len: int) -> Records | None:
    """None where a source is tokenized while training: how many it has is not known."""
    packed, numbers = _packed(corpus, config, seq_len), []
    for source in corpus.sources:
        if isinstance(source.content, Stream):
            return None
        numbers.append(sum(len(shard.documents) for shard in source.content.shards))
    weights, rows = _weights(corpus, packed), [len(p) for p in packed if not isinstance(p, Stream)]
    per_row = sum(w * n / r for w, n, r in zip(weights, numbers, rows, strict=True)) / sum(weights)
    return Records(sum(numbers), sum(rows), per_row)


def keeps_apart(corpus: Corpus, config: DataConfig) -> bool:
    """Whether tokens attend within their documents alone: as configured, else where all are prompts and completions."""
    if config.attend_across_documents is not None:
        return not config.attend_across_documents
    return all(
        source.config.format is not Format.text or (isinstance(source.content, Tokens) and source.content.has_prompts)
        for source in corpus.sources
    )


def _weights(corpus: Corpus, packed: Sequence[Rows | Stream]) -> list[float]:
    """Sampling weight of each source: the configured one, or its rows times its epochs (1.0 for a stream)."""
    return [
        source.config.weight or (1.0 if isinstance(rows, Stream) else len(rows) * (source.config.epochs or 1.0))
        for source, rows in zip(corpus.sources, packed, strict=True)
    ]


def check_epochs(corpus: Corpus, config: DataConfig, seq_len: int, n_rows: int) -> None:
    """Raise DataError when a run of `n_rows` rows would read a source more often than its `epochs` allow."""
    if all(source.config.epochs is None for source in corpus.sources):
        return
    packed = _packed(corpus, config, seq_len)
    weights = _weights(corpus, packed)
    for source, rows, weight in zip(corpus.sources, packed, weights, strict=True):
        if source.config.epochs is None or isinstance(rows, Stream):
            continue
        needed = n_rows * weight / sum(weights) / len(rows)
        # A mixture's shares are multiples of 1/10,000, and the last batch may be cut: a little more is no more.
        if needed > source.config.epochs * 1.01:
            raise DataError(
                f"data.sources.{source.name}.epochs={source.config.epochs:g}: the run would read it {needed:.2f} times;"
                " train for fewer steps, lower its weight, or allow more"
            )


def training_loader(
    corpus: Corpus, config: DataConfig, *, seq_len: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
) -> Loader:
    """Endless batches for one data-parallel rank."""
    packed = _packed(corpus, config, seq_len)
    return Loader(
        packed,
        Mixture(_weights(corpus, packed), seed),
        seq_len=seq_len,
        fill_id=corpus.tokenizer.eos_id,
        batch_size=batch_size,
        rank=rank,
        world_size=world_size,
        num_workers=config.num_workers,
        stream_lanes=config.stream_lanes,
        apart=keeps_apart(corpus, config),
    )
