"""A chunk of text as tokens: what a process of data.prepare does."""

import gc
from dataclasses import dataclass, field

import numpy as np

from data.config import SourceConfig
from data.prepared.shards import token_dtype
from data.sources.chunks import Chunk
from data.sources.documents import Bad, Document
from data.sources.split import PARTS, Split
from data.tokenizers.long_text import as_array, continuation, document_tokens
from data.tokenizers.tokenizer import Tokenizer


@dataclass
class Encoded:
    """Documents of one part, tokenized."""

    tokens: np.ndarray
    """[N] in the dtype of the shards."""
    lengths: list[int] = field(default_factory=list)
    """Tokens of each document."""
    prompts: list[int] = field(default_factory=list)
    """How many of them are a prompt."""
    n_bytes: int = 0
    """Bytes of the text in UTF-8."""


@dataclass
class EncodedChunk:
    """What came of a chunk."""

    parts: dict[str, Encoded]
    bad: list[str]
    """Messages of what could not be read."""
    empty: list[str]
    """Names of documents without text."""
    n_source_bytes: int


@dataclass(frozen=True)
class Encoder:
    """Turns chunks into tokens; the same in every process."""

    tokenizer: Tokenizer
    source: SourceConfig
    split: Split

    def __call__(self, chunk: Chunk) -> EncodedChunk:
        """Tokenize a chunk; what cannot be read is collected, not raised."""
        # Lists of millions of ids keep the garbage collector busy, and leave no cycles behind.
        collecting = gc.isenabled()
        gc.disable()
        try:
            return self._encode(chunk)
        finally:
            if collecting:
                gc.enable()

    def _encode(self, chunk: Chunk) -> EncodedChunk:
        dtype = token_dtype(self.tokenizer.vocab_size)
        arrays: dict[str, list[np.ndarray]] = {part: [] for part in PARTS}
        done = EncodedChunk({p: Encoded(np.empty(0, dtype)) for p in PARTS}, [], [], chunk.n_source_bytes)
        for document in chunk.documents(self.source):
            if isinstance(document, Bad):
                done.bad.append(document.message)
            elif (wrong := _unknown(document, self.tokenizer.vocab_size)) is not None:
                done.bad.append(f"{document.name}: token {wrong}; the tokenizer has {self.tokenizer.vocab_size} pieces")
            elif document.is_empty:
                done.empty.append(document.name)
            else:
                for part, piece in self.split.parts(document):
                    ids, n_prompt = document_ids(self.tokenizer, piece)
                    arrays[part].append(ids.astype(dtype))
                    to = done.parts[part]
                    to.lengths.append(len(ids))
                    to.prompts.append(n_prompt)
                    to.n_bytes += _n_bytes(piece, self.tokenizer)
        for part in PARTS:
            if arrays[part]:
                done.parts[part].tokens = np.concatenate(arrays[part])
        return done


def _unknown(document: Document, vocab_size: int) -> int | None:
    """A token that the vocabulary does not have."""
    return next((token for token in document.tokens if not 0 <= token < vocab_size), None)


def _n_bytes(document: Document, tokenizer: Tokenizer) -> int:
    """Bytes of a document's text, in UTF-8."""
    text = tokenizer.decode(list(document.tokens)) if document.tokens else document.text
    return len(text.encode("utf-8"))


def document_ids(tokenizer: Tokenizer, document: Document) -> tuple[np.ndarray, int]:
    """(ids of a document as uint32, how many of them are its prompt).

    A prompt is encoded as it will be when the model is asked to continue it.
    """
    if document.tokens:
        return as_array(list(document.tokens)), 0
    if not document.prompt:
        return document_tokens(tokenizer, document.text), 0
    prompt = tokenizer.encode_prompt(document.prompt)
    return as_array([*prompt, *continuation(tokenizer, document.text), tokenizer.eos_id]), len(prompt)
