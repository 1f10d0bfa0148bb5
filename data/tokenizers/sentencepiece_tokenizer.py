"""Text to ids and back, byte-exact: a SentencePiece BPE model with byte fallback.

Where the model normalises nothing, decode(encode(text)) == text for every string. One character needs care:
SentencePiece writes a space as U+2581, so that character itself would come back as a space; it goes through its bytes.
"""

import io
import random
from collections.abc import Iterable, Iterator

import sentencepiece as spm

from data.config import DataError
from data.sources.documents import Document
from data.tokenizers.document import as_document

MODEL_FILE = "tokenizer.model"
SPACE_MARK = "\u2581"
# Appended to a model it is merged into it, as Protocol Buffers do: normalizer_spec (3) { add_dummy_prefix (3): false }.
NO_PREFIX = b"\x1a\x02\x18\x00"
# SentencePiece drops longer "sentences" in training; documents are cut at line ends well below.
MAX_TRAIN_PIECE_BYTES = 4000


class SentencePieceTokenizer:
    """A SentencePiece model that must be able to spell every byte and to mark where a document begins and ends."""

    def __init__(self, model: bytes, name: str = "tokenizer") -> None:
        """Load a serialised model. Raises DataError when it is none, or cannot serve here."""
        self.files = {MODEL_FILE: model}
        try:
            self._sp = _processor(model)
        except (RuntimeError, ValueError):
            raise DataError(
                f"{name}: not a SentencePiece model, nor Llama 3's tiktoken file; give one of these or a tokenizer.json"
            ) from None
        self.vocab_size: int = self._sp.GetPieceSize()
        self.bos_id: int = self._sp.bos_id()
        self.eos_id: int = self._sp.eos_id()
        if min(self.bos_id, self.eos_id) < 0:
            raise DataError(f"{name}: the model has no <s> or no </s> piece, which mark where documents begin and end")
        byte_ids = [self._sp.PieceToId(f"<0x{b:02X}>") for b in range(256)]
        if not all(self._sp.IsByte(i) for i in byte_ids):
            raise DataError(f"{name}: the model has no byte fallback, so some text could not be written")
        self._space_mark_ids = [byte_ids[b] for b in SPACE_MARK.encode("utf-8")]
        # A model may put a space before the text (Llama 2's does), and its decoder takes one away there. What follows
        # a U+2581 is not the beginning of the text.
        prefixed = self._sp.EncodeAsPieces("a")[0].startswith(SPACE_MARK)
        self._inner = _processor(model + NO_PREFIX) if prefixed else self._sp
        self._prefix: list[int] = self._inner.EncodeAsIds(" ") if prefixed else []

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without <s> or </s>."""
        first, *rest = text.split(SPACE_MARK)
        # Of an empty text the model makes nothing, not even the space before it.
        ids: list[int] = self._sp.EncodeAsIds(first) if first or not rest else list(self._prefix)
        for part in rest:
            ids += self._space_mark_ids
            ids += self._inner.EncodeAsIds(part)
        return ids

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of the beginning of a document, after <s>."""
        return [self.bos_id, *self.encode(text)]

    def encode_document(self, text: str) -> list[int]:
        """Ids of a whole document, between <s> and </s>."""
        return as_document(self.encode(text), self.bos_id, self.eos_id)

    def decode(self, ids: list[int]) -> str:
        """The text of ids; <s>, </s>, <unk> and what is beyond the vocabulary say nothing."""
        text: str = self._sp.DecodeIds([i for i in ids if not self._is_silent(i)])
        return text

    def _is_silent(self, i: int) -> bool:
        silent: bool = i >= self.vocab_size or self._sp.IsControl(i) or self._sp.IsUnknown(i)
        return silent

    def token_bytes(self) -> list[int]:
        """For each id, how many bytes of text it stands for; control pieces stand for none."""
        return [len(self.piece(i)) for i in range(self.vocab_size)]

    def piece(self, i: int) -> bytes:
        """The bytes of text that an id stands for, which need not be whole characters; none of a control piece."""
        name = self.name(i)
        if self._sp.IsByte(i):
            return bytes([int(name[3:5], 16)])
        if self._is_silent(i) or self._sp.IsUnused(i):
            return b""
        return name.replace(SPACE_MARK, " ").encode("utf-8")

    def name(self, i: int) -> str:
        """What the vocabulary calls an id."""
        name: str = self._sp.IdToPiece(i)
        return name


def _processor(model: bytes) -> spm.SentencePieceProcessor:
    processor = spm.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model)
    return processor


def train_tokenizer(
    documents: list[Document], vocab_size: int, max_megabytes: int, name: str
) -> SentencePieceTokenizer:
    """Train a BPE tokenizer of exactly `vocab_size` pieces.

    Raises DataError when the text is too small for so many pieces.
    """
    model = io.BytesIO()
    try:
        spm.SentencePieceTrainer.Train(
            sentence_iterator=iter(_training_pieces(_sample(documents, max_megabytes * 10**6))),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            byte_fallback=True,
            character_coverage=0.9995,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            num_threads=2,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).strip().split("] ")[-1].replace("\n", " ")
        raise DataError(
            f"data.tokenizer.vocab_size={vocab_size}: no tokenizer of that size can be trained on {name} ({reason})"
        ) from None
    return SentencePieceTokenizer(model.getvalue(), name)


def _sample(documents: list[Document], max_bytes: int) -> Iterator[str]:
    """Documents in a fixed random order until they make up so many bytes; of a huge one, as many characters."""
    order = sorted(documents, key=lambda d: d.name)
    random.Random(0).shuffle(order)
    n_bytes = 0
    for document in order:
        if n_bytes >= max_bytes:
            return
        text = document.text[:max_bytes]
        n_bytes += len(text.encode("utf-8"))
        yield text


def _training_pieces(texts: Iterable[str]) -> Iterator[str]:
    """Texts cut at some line ends into "sentences" of the trainer; newlines inside stay, for pieces to hold.

    Lines that are longer than a sentence may be are cut anywhere: the trainer would leave them out.
    """
    for text in texts:
        lines: list[str] = []
        size = 0
        for line in text.split("\n"):
            n_bytes = len(line.encode("utf-8")) + 1
            if lines and size + n_bytes > MAX_TRAIN_PIECE_BYTES:
                yield from _short("\n".join(lines) + "\n", size)
                lines, size = [], 0
            lines.append(line)
            size += n_bytes
        yield from _short("\n".join(lines), size)


def _short(piece: str, n_bytes: int) -> Iterator[str]:
    """The piece, or what it is made of where a single line is longer than the trainer takes."""
    if n_bytes <= MAX_TRAIN_PIECE_BYTES:
        yield piece
    else:
        most = MAX_TRAIN_PIECE_BYTES // 4  # characters of at most four bytes
        yield from (piece[i : i + most] for i in range(0, len(piece), most))
