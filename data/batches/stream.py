"""A data set of the hub read while training, dealt into lanes, each of which can stop and go on at any token.

A lane reads its share of the data set (files of its own if there are enough, else every so-many-th record) in blocks of
records; each block's order is a function of (seed, lane, epoch, block). What a lane remembers is where in the data set
its block begins, which document of the block is next, and which token of it.
"""

import hashlib
import json
import logging
from collections import deque
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from conf.errors import reason
from data.batches.packing import IGNORE_INDEX, positions_between
from data.config import DataError, OnError, SourceConfig
from data.files import write_whole
from data.prepared.compressors import compressors
from data.prepared.encoding import document_ids
from data.prepared.shards import Tokens, open_part, token_dtype, write_shard
from data.sources.documents import Bad, Document, document_of
from data.sources.hub import hub_chunks, open_stream, records
from data.sources.split import VALIDATION
from data.tokenizers.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

BLOCK_DOCUMENTS = 256


class Stream:
    """A source that is tokenized while training."""

    def __init__(
        self, source: SourceConfig, tokenizer: Tokenizer, held_out: frozenset[bytes], on_error: OnError, max_errors: int
    ) -> None:
        """`held_out`: digests of the documents to leave out."""
        self.source, self.tokenizer, self.held_out = source, tokenizer, held_out
        self.on_error, self.max_errors = on_error, max_errors


class _Place(NamedTuple):
    """Where a document of a lane is."""

    epoch: int
    block: int
    read: int
    """Records of this epoch read before the block."""
    stream: dict[str, Any] | None
    """State of the data set there."""
    document: int
    bad: int
    """Records left out before the block."""


class _Tokenized(NamedTuple):
    """A document of a lane."""

    place: _Place
    ids: np.ndarray
    n_prompt: int


class Lane:
    """Rows of one lane, one after another: every token but the lane's first is a label exactly once."""

    def __init__(self, stream: Stream, lane: int, n_lanes: int, seq_len: int, seed: int, state: str | None) -> None:
        """Begin, or go on at a `state` of an earlier Lane of the same stream, lane and seed."""
        self._stream, self._lane, self._n_lanes, self._seq_len, self._seed = stream, lane, n_lanes, seq_len, seed
        place, self._offset = _Place(0, 0, 0, None, 0, 0), 0
        if state is not None:
            *fields, self._offset = json.loads(state)
            place = _Place(*fields)
        self._place = place
        self._pending: deque[_Tokenized] = deque()
        self._records: Any = None

    def state(self) -> str:
        """Where the next row begins."""
        place = self._pending[0].place if self._pending else self._place
        return json.dumps([*place, self._offset])

    def fill(self, inputs: np.ndarray, labels: np.ndarray, document_positions: np.ndarray | None = None) -> None:
        """Write the next row into inputs [T] and labels [T], and its positions, as data.batches.packing.Rows does.

        Raises DataError when the stream breaks or ends.
        """
        n = self._seq_len
        row, in_prompt = np.empty(n + 1, np.int64), np.zeros(n + 1, bool)
        at, begin, begins = 0, self._offset, []
        for document in self._documents_on():
            if begin == 0:
                begins.append(at)
            ids = document.ids[begin : begin + n + 1 - at]
            row[at : at + len(ids)] = ids
            in_prompt[at : at + max(0, document.n_prompt - begin)] = True
            at, begin = at + len(ids), 0
            if at > n:
                break
        inputs[:] = row[:-1]
        labels[:] = row[1:]
        labels[in_prompt[1:]] = IGNORE_INDEX
        if document_positions is not None:
            document_positions[:] = positions_between(np.array(begins, np.int64), n)
            labels[[b - 1 for b in begins if b]] = IGNORE_INDEX
        self._offset += n
        while self._offset >= len(self._pending[0].ids):
            self._offset -= len(self._pending.popleft().ids)

    def _documents_on(self) -> Iterator[_Tokenized]:
        """The documents from the current one on, as many as are asked for."""
        for i in count():
            if i == len(self._pending):
                self._pending.append(self._next_document())
            yield self._pending[i]

    def _next_document(self) -> _Tokenized:
        if self._records is None:
            self._open()
        while self._place.document >= len(self._order):
            self._next_block()
        place = self._place
        document = self._documents[self._order[place.document]]
        self._place = place._replace(document=place.document + 1)
        ids, n_prompt = document_ids(self._stream.tokenizer, document)
        return _Tokenized(place, ids, n_prompt)

    def _open(self) -> None:
        """Open the data set at the current block and read that block."""
        source = self._stream.source
        whole = open_stream(source)
        files = whole.num_shards
        if files >= self._n_lanes:
            self._every, self._first = 1, 0
            self._data = whole.shard(self._n_lanes, self._lane)
        else:
            # Lanes that share a file take its records in turn.
            self._data = whole.shard(files, self._lane % files) if files > 1 else whole
            self._every = -(-(self._n_lanes - self._lane % files) // files)
            self._first = self._lane // files
        if self._place.stream is not None:
            self._data.load_state_dict(self._place.stream)
        self._records, self._read = records(self._data), self._place.read
        self._found, self._from_begin = 0, self._place.stream is None
        self._n_empty = self._n_held_out = 0
        self._read_block()

    def _next_block(self) -> None:
        """Go to the next block, or after the last to the next epoch."""
        place = self._place
        if self._ended:
            if self._found == 0 and self._from_begin:
                raise DataError(
                    f"{self._stream.source.path}: lane {self._lane} of {self._n_lanes} got no document;"
                    " a smaller data.stream_lanes gives each more, fewer data.validation_documents leave more"
                )
            epochs = self._stream.source.epochs
            if epochs is not None and place.epoch + 1 >= epochs:
                raise DataError(f"{self._stream.source.path}: read {epochs:g} times (epochs); raise it, or train less")
            logger.info(
                "%s, lane %d: epoch %d is over; %d empty and %d held-out documents left out",
                self._stream.source.path, self._lane, place.epoch + 1, self._n_empty, self._n_held_out,
            )  # fmt: skip
            self._place = _Place(place.epoch + 1, 0, 0, None, 0, place.bad + self._bad)
            self._records = None
            self._open()
            return
        self._place = _Place(
            place.epoch, place.block + 1, self._read, self._data.state_dict(), 0, place.bad + self._bad
        )
        self._read_block()

    def _read_block(self) -> None:
        """The documents of the block that begins here, in its order."""
        stream, self._documents, self._ended, self._bad = self._stream, [], False, 0
        n_documents = BLOCK_DOCUMENTS * self._every
        name = f"{stream.source.path}, lane {self._lane}"
        for _ in range(n_documents):
            record = self._next_record(name)
            if record is None:
                self._ended = True
                break
            self._read += 1
            if (self._read - 1) % self._every != self._first:
                continue
            where = f"{name}, record {self._read}"
            document = document_of(record, stream.source, where, where)
            if isinstance(document, Bad):
                self._bad += 1
                self._left_out(document)
            elif not document.text:
                self._n_empty += 1
            elif digest(document) in stream.held_out:
                self._n_held_out += 1
            else:
                self._documents.append(document)
        self._found += len(self._documents)
        key = (self._seed, self._lane, self._place.epoch, self._place.block)
        self._order = np.random.default_rng(key).permutation(len(self._documents))

    def _next_record(self, name: str) -> Any:
        try:
            return next(self._records, None)
        except Exception as error:  # `datasets` and what it stands on raise many kinds
            raise DataError(f"{name}, after record {self._read}: cannot be read ({reason(error)})") from None

    def _left_out(self, bad: Bad) -> None:
        if self._stream.on_error is OnError.stop:
            raise DataError(f"{bad.message} (data.on_error=skip leaves such records out, and counts them)")
        if self._place.bad + self._bad > self._stream.max_errors:
            raise DataError(f"{bad.message}: more than data.max_errors={self._stream.max_errors} cannot be read")
        logger.warning("left out: %s", bad.message)


def digest(document: Document) -> bytes:
    """Stands for a document's text."""
    return hashlib.blake2b((document.prompt + document.text).encode("utf-8"), digest_size=16).digest()


def open_held_out(
    source: SourceConfig, tokenizer: Tokenizer, folder: Path, n_documents: int
) -> tuple[Tokens, frozenset[bytes], dict[str, float]]:
    """(tokens of the first documents of a stream, their digests, facts), read once and kept in the folder.

    Of a source with a validation split the documents are those of the split; then no digest is needed.
    """
    facts_file = folder / "facts.json"
    if not facts_file.exists():
        documents: list[Document] = []
        for chunk in hub_chunks(source, source.validation):
            read = [d for d in chunk.documents(source) if isinstance(d, Document) and d.text]
            documents += read[: n_documents - len(documents)]
            if len(documents) >= n_documents:
                break
        if not documents:
            raise DataError(f"{source.path}: no document to hold out")
        encoded = [document_ids(tokenizer, d) for d in documents]
        tokens = np.concatenate([ids.astype(token_dtype(tokenizer.vocab_size)) for ids, _ in encoded])
        index = np.stack([np.cumsum([len(ids) for ids, _ in encoded]), [n for _, n in encoded]], axis=1)
        entry = write_shard(folder, VALIDATION, 0, tokens, index.astype(np.int64))
        text = "".join(d.text for d in documents)
        facts = compressors(text) | {
            "validation_documents": len(documents),
            "validation_bytes": len(text.encode("utf-8")),
            "validation_tokens": len(tokens),
        }
        digests = "" if source.validation else "".join(digest(d).hex() for d in documents)
        write_whole(facts_file, json.dumps({"shard": entry, "facts": facts, "digests": digests}).encode())
    found = json.loads(facts_file.read_text())
    raw = bytes.fromhex(found["digests"])
    held_out = frozenset(raw[i : i + 16] for i in range(0, len(raw), 16))
    return open_part(folder, {"parts": {VALIDATION: [found["shard"]]}}, VALIDATION), held_out, found["facts"]
