"""A corpus made ready: tokenizer, training sources and held-out tokens, cached under a hash of what they depend on."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from conf.output import writable_folder
from data.batches.stream import Stream, open_held_out
from data.config import DataConfig, DataError, SourceConfig, TokenizerConfig
from data.files import write_whole
from data.prepared.preparation import prepare_shards, source_fingerprint
from data.prepared.progress import Settings
from data.prepared.shards import (
    MANIFEST,
    Tokens,
    content_hash,
    is_prepared,
    open_part,
    read_manifest,
    shards_tokenizer,
    tokenizer_hash,
    verify,
)
from data.prepared.token_counts import token_counts
from data.sources.split import TRAIN, VALIDATION
from data.tokenizers.sentencepiece_tokenizer import train_tokenizer
from data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from data.tokenizers.training_sample import training_sample

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSource:
    """What one source gives to training."""

    name: str
    config: SourceConfig
    content: Tokens | Stream


@dataclass(frozen=True)
class Corpus:
    """Tokens ready to be packed into rows."""

    tokenizer: Tokenizer
    tokenizer_path: Path
    sources: list[TrainingSource]
    validation: Tokens
    """Held-out documents of all sources."""
    facts: dict[str, float]
    """Counts, and what gzip -9 and xz -9 need for the held-out text, in bits per byte."""
    digests: dict[str, str]
    """Name of a source -> SHA-256 of its tokens; a source that is tokenized while training has none."""
    cache_dir: Path

    def token_counts(self, vocab_size: int) -> np.ndarray:
        """[V] int64: how often each token occurs in the beginning of each source, or where that is a stream, of the
        held-out text.
        """
        texts = [source.content for source in self.sources if isinstance(source.content, Tokens)]
        return token_counts(texts if len(texts) == len(self.sources) else [*texts, self.validation], vocab_size)


def prepare(config: DataConfig, model_vocab_size: int | None = None) -> Corpus:
    """Read, split and tokenize a corpus, or find the result of an earlier time in the cache.

    Processes that start together share the work through a lock: one does it, the others wait. What a killed process
    has begun is finished. Raises DataError for bad input, and, before anything is tokenized, for a tokenizer with more
    pieces than the model's embedding has rows.
    """
    cache = writable_folder(config.cache_dir, "data.cache_dir")
    tokenizer, path = _tokenizer(config, cache)
    if model_vocab_size is not None and tokenizer.vocab_size > model_vocab_size:
        raise DataError(
            f"model.vocab_size={model_vocab_size}: must be at least the tokenizer's {tokenizer.vocab_size} pieces"
        )
    sources, held_out, facts, digests = [], [], [], {}
    for name, source in config.sources.items():
        if source.streaming:
            folder = cache / f"{name}-{_key(source, tokenizer, config.validation_documents)}"
            with _locked(folder):
                tokens, documents, fact = open_held_out(source, tokenizer, folder, config.validation_documents)
            content: Tokens | Stream = Stream(source, tokenizer, documents, config.on_error, config.max_errors)
        else:
            folder, manifest = _shards(name, source, tokenizer, config, cache)
            content, tokens = (open_part(folder, manifest, part) for part in (TRAIN, VALIDATION))
            fact, digests[name] = manifest["facts"], content_hash(manifest)
            if not len(content):
                raise DataError(f"data.sources.{name}: {folder} has no training tokens")
        sources.append(TrainingSource(name, source, content))
        held_out += tokens.shards
        facts.append(fact)
    validation = Tokens(held_out)
    if len(validation) < 2:
        raise DataError(
            "data.sources: none has held-out text; prepare shards with a validation_fraction, or name a source's own"
            " held-out text (validation)"
        )
    return Corpus(tokenizer, path, sources, validation, _together(facts), digests, cache)


def _shards(
    name: str, source: SourceConfig, tokenizer: Tokenizer, config: DataConfig, cache: Path
) -> tuple[Path, dict[str, Any]]:
    """(folder, manifest) of a source's shards, checked: its own, or those in the cache, made if they are not there."""
    settings = Settings(config.validation_fraction, config.on_error, config.max_errors)
    if is_prepared(source.path):
        folder = Path(source.path).expanduser()
        key = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()[:16]
    else:
        key = _key(source, tokenizer, config.validation_fraction)
        folder = cache / f"{name}-{key}"
    with _locked(cache / f"{name}-{key}.check"):
        if not is_prepared(folder):
            logger.info("tokenizing %s", source.path)
            prepare_shards(source, tokenizer, folder, settings)
        manifest = read_manifest(folder)
        if manifest["tokenizer_sha256"] != tokenizer_hash(tokenizer):
            raise DataError(
                f"data.sources.{name}: {folder} was made with another tokenizer; prepare it with this run's, or set"
                f" data.tokenizer.path={folder}"
            )
        verify(folder, manifest, cache / f"{name}-{key}.check" / "verified.json")
    return folder, manifest


def _key(source: SourceConfig, tokenizer: Tokenizer, held_out: float) -> str:
    parts = [source_fingerprint(source), tokenizer_hash(tokenizer), held_out]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        yield


def _tokenizer(config: DataConfig, cache: Path) -> tuple[Tokenizer, Path]:
    """The run's tokenizer and where it lies: named, of prepared shards, or trained on the sources."""
    prepared = [Path(s.path).expanduser() for s in config.sources.values() if is_prepared(s.path)]
    if config.tokenizer.path is not None:
        folder = Path(config.tokenizer.path).expanduser()
        tokenizer = load_tokenizer(folder)
    elif prepared:
        folder = prepared[0]
        tokenizer = shards_tokenizer(folder, read_manifest(folder))
    else:
        folder = trained_tokenizer(config.sources, config.tokenizer, config.validation_fraction, cache)
        tokenizer = load_tokenizer(folder)
    return tokenizer, folder if folder.is_file() else folder / next(iter(tokenizer.files))


def trained_tokenizer(
    sources: Mapping[str, SourceConfig], options: TokenizerConfig, validation_fraction: float, cache: Path
) -> Path:
    """The folder in the cache with a SentencePiece model trained on the sources' training text, made if need be."""
    settings = [validation_fraction, options.vocab_size, options.max_train_megabytes]
    prints = [[name, source_fingerprint(s), s.weight] for name, s in sources.items()]
    folder = cache / f"tokenizer-{hashlib.sha256(json.dumps([settings, prints]).encode()).hexdigest()[:16]}"
    with _locked(folder):
        if not any(folder.glob("tokenizer.*")):
            logger.info("training a tokenizer of %d pieces", options.vocab_size)
            documents = training_sample(sources, validation_fraction, options.max_train_megabytes * 10**6)
            name = ", ".join(source.path for source in sources.values())
            trained = train_tokenizer(documents, options.vocab_size, options.max_train_megabytes, name)
            for file, content in trained.files.items():
                write_whole(folder / file, content)
    return folder


def _together(facts: list[dict[str, float]]) -> dict[str, float]:
    """Counts add up; bits per byte are means over the held-out bytes."""
    total = {key: sum(f[key] for f in facts if key in f) for key in facts[0] if not key.endswith("_per_byte")}
    for key in ("gzip_bits_per_byte", "xz_bits_per_byte"):
        n_bytes = {i: f["validation_bytes"] for i, f in enumerate(facts) if key in f}
        total[key] = sum(facts[i][key] * n for i, n in n_bytes.items()) / max(1.0, sum(n_bytes.values()))
    return total
