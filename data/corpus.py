"""A corpus made ready: tokenizer, training and validation tokens, cached under a hash of everything they depend on."""

import gzip
import hashlib
import io
import json
import logging
import lzma
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from data.config import DataConfig, DataError
from data.files import write_whole
from data.sentencepiece_tokenizer import train_tokenizer
from data.sources import Document, find_files, read_documents
from data.split import split
from data.tokenizer import Tokenizer, load_tokenizer

logger = logging.getLogger(__name__)

CACHE_FORMAT = 1  # raise it when what the files mean changes


@dataclass(frozen=True)
class Corpus:
    """Tokens ready to be packed into rows."""

    tokenizer: Tokenizer
    tokenizer_path: Path
    train: np.ndarray
    """[N] uint16 or uint32, memory-mapped: documents one after another, each between <s> and </s>."""
    validation: np.ndarray
    """The same for the held-out documents."""
    facts: dict[str, float]
    """Counts, and what gzip -9 and xz -9 need for the held-out text, in bits per byte."""


def prepare(config: DataConfig) -> Corpus:
    """Read, split and tokenize a corpus, or find the result of an earlier time in the cache.

    Processes that start together share the work through a lock: one does it, the others wait. A file in the cache is
    complete or absent. Raises DataError for bad input.
    """
    folder = Path(config.cache_dir).expanduser() / _fingerprint(config)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / "facts.json").exists():
            _build(config, folder)
    try:
        return _load(folder)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: the cache is damaged ({error}); delete that folder") from None


def _load(folder: Path) -> Corpus:
    tokenizer = load_tokenizer(folder)
    return Corpus(
        tokenizer=tokenizer,
        tokenizer_path=folder / next(iter(tokenizer.files)),
        train=np.load(folder / "train.npy", mmap_mode="r"),
        validation=np.load(folder / "validation.npy", mmap_mode="r"),
        facts=json.loads((folder / "facts.json").read_text()),
    )


def _fingerprint(config: DataConfig) -> str:
    """A hash of the files (names, sizes, times) and of every setting that the cached files depend on."""
    root, files = find_files(config.source)
    digest = hashlib.sha256()
    settings = [CACHE_FORMAT, config.text_field, config.validation_fraction]
    if config.tokenizer.path is None:
        settings += [config.tokenizer.vocab_size, config.tokenizer.max_train_megabytes]
    else:
        contents = load_tokenizer(config.tokenizer.path).files.values()
        settings += [hashlib.sha256(content).hexdigest() for content in contents]
    digest.update(json.dumps(settings).encode())
    for file in files:
        stat = file.stat()
        digest.update(f"{file.relative_to(root).as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return f"{config.name}-{digest.hexdigest()[:16]}"


def _build(config: DataConfig, folder: Path) -> None:
    logger.info("reading %s", config.source)
    train, validation = split(list(read_documents(config.source, config.text_field)), config.validation_fraction)
    if config.tokenizer.path is None:
        logger.info("training a tokenizer of %d pieces", config.tokenizer.vocab_size)
        tokenizer: Tokenizer = train_tokenizer(
            train, config.tokenizer.vocab_size, config.tokenizer.max_train_megabytes, config.source
        )
    else:
        tokenizer = load_tokenizer(config.tokenizer.path)
    for name, content in tokenizer.files.items():
        write_whole(folder / name, content)
    facts: dict[str, float] = {}
    for name, documents in (("train", train), ("validation", validation)):
        tokens = _tokenize(tokenizer, documents, name)
        array = io.BytesIO()
        np.save(array, tokens)
        write_whole(folder / f"{name}.npy", array.getvalue())
        facts |= {
            f"{name}_documents": len(documents),
            f"{name}_bytes": sum(len(d.text.encode("utf-8")) for d in documents),
            f"{name}_tokens": len(tokens),
        }
    facts |= compressors(validation)
    write_whole(folder / "facts.json", json.dumps(facts, indent=2).encode())


def _tokenize(tokenizer: Tokenizer, documents: list[Document], name: str) -> np.ndarray:
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
    texts = tqdm(documents, desc=f"tokenizing {name}", unit="doc", leave=False, disable=None)
    arrays = [np.array(tokenizer.encode_document(d.text), dtype) for d in texts]
    return np.concatenate(arrays)


def compressors(documents: list[Document], max_bytes: int = 32 * 10**6) -> dict[str, float]:
    """Bits per byte that general compressors need for a text: what a language model must at least beat."""
    raw = "".join(d.text for d in documents).encode("utf-8")[:max_bytes]
    return {
        "gzip_bits_per_byte": 8 * len(gzip.compress(raw, 9)) / len(raw),
        "xz_bits_per_byte": 8 * len(lzma.compress(raw, preset=9)) / len(raw),
    }


def check_vocabulary(corpus: Corpus, model_vocab_size: int) -> None:
    """Raise DataError when the tokenizer has more pieces than the model's embedding has rows."""
    if corpus.tokenizer.vocab_size > model_vocab_size:
        raise DataError(
            f"model.vocab_size={model_vocab_size}: must be at least the tokenizer's"
            f" {corpus.tokenizer.vocab_size} pieces"
        )
