"""The text that a tokenizer is trained on: a sample of the training documents of all sources."""

import hashlib
import math
from collections.abc import Iterator, Mapping

from data.config import DataError, SourceConfig
from data.sources.documents import Bad, Document
from data.sources.reading import source_chunks
from data.sources.source_files import COMPRESSED, PARQUET, find_files, has_files, kind
from data.sources.split import TRAIN, Split, split_of

COMPRESSION = 4  # about how many bytes of text a compressed byte stands for


def training_sample(sources: Mapping[str, SourceConfig], fraction: float, max_bytes: int) -> list[Document]:
    """Training documents, evenly over each source, a little more than `max_bytes` in all if there are so many.

    What cannot be read is passed over here; tokenizing tells it. Raises DataError when nothing is left, for what could
    not be read first.
    """
    weights = {name: source.weight or 1.0 for name, source in sources.items()}
    documents: list[Document] = []
    bad: list[Bad] = []
    for name, source in sources.items():
        share = max_bytes * weights[name] / sum(weights.values()) if len(sources) > 1 else max_bytes
        documents += _sample(source, fraction, int(share), bad)
    if not documents and bad:
        raise DataError(bad[0].message)
    if not documents:
        raise DataError(
            f"{', '.join(s.path for s in sources.values())}: no text is left to train a tokenizer on; give more"
        )
    return documents


def _sample(source: SourceConfig, fraction: float, max_bytes: int, bad: list[Bad]) -> Iterator[Document]:
    """Training documents of one source; the first that cannot be read joins `bad`."""
    split = split_of(source, 0.0 if source.validation else fraction)
    # Twice as much as is needed: chunks differ in size, and what is held out falls away.
    share = 2 * max_bytes / max(1.0, _text_bytes(source))
    some = False
    for document in _documents(source, split, share, max_bytes, bad):
        some = True
        yield document
    if not some and share < 1.0:  # few and large chunks, none of which was drawn: from the beginning, then
        yield from _documents(source, split, math.inf, max_bytes, bad)


def _documents(source: SourceConfig, split: Split, share: float, max_bytes: int, bad: list[Bad]) -> Iterator[Document]:
    """Those of about a share of the chunks, or of all, until there are `max_bytes` where that is enough."""
    taken = 0
    for number, chunk in enumerate(source_chunks(source)):
        if share < 1.0 and _hash(number) >= share * 2**64:
            continue
        for document in chunk.documents(source):
            if isinstance(document, Bad):
                bad += [] if bad else [document]
                continue
            for part, piece in split.parts(document):
                if part == TRAIN:
                    taken += len(piece.text.encode("utf-8")) + len(piece.prompt.encode("utf-8"))
                    yield Document(piece.name, piece.prompt + piece.text)
        if taken > max_bytes and (share < 1.0 or share == math.inf or not has_files(source.path)):
            return


def _text_bytes(source: SourceConfig) -> float:
    """Roughly; a stream's size is not known, so that its beginning is taken."""
    if not has_files(source.path):
        return 1.0
    files = find_files(source.path)[1]
    return sum(f.stat().st_size * (COMPRESSION if f.suffix in COMPRESSED + PARQUET else 1) for f in files if kind(f))


def _hash(number: int) -> int:
    return int.from_bytes(hashlib.blake2b(number.to_bytes(8, "big"), digest_size=8).digest(), "big")
