"""What the project asks of a tokenizer, and which one a file is."""

import logging
from pathlib import Path
from typing import Protocol

from conf.llama3_tiktoken import is_tiktoken
from data.config import DataError
from data.tokenizers.json_tokenizer import CHAT_FILE, CONFIG_FILE, JSON_FILE, JsonTokenizer
from data.tokenizers.sentencepiece_tokenizer import MODEL_FILE, SentencePieceTokenizer
from data.tokenizers.tiktoken_tokenizer import TiktokenTokenizer

KINDS = f"give a SentencePiece .model, Llama 3's tiktoken file (also {MODEL_FILE}) or a {JSON_FILE}"
# What normalisers are known to change: blanks, case, punctuation, forms of a character, the mark of a space, controls.
PROBES = (
    "  two  blanks \t\r\n ",
    "Case , .",
    "e\u0301 \u00e9 \ufb01 \u212b \uff21",
    "\u2581a \u2581",
    "\x00\u200b\u3000",
)

logger = logging.getLogger(__name__)


class Tokenizer(Protocol):
    """Text to ids and back. The files are all of it: written elsewhere, they load as the same tokenizer."""

    files: dict[str, bytes]
    """Name -> content."""
    vocab_size: int
    eos_id: int
    """Ends a document."""

    @property
    def bos_id(self) -> int | None:
        """Begins a document; None if nothing does."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of a text; nothing is added."""
        ...

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of the beginning of a document, as the model was trained on it."""
        ...

    def encode_document(self, text: str) -> list[int]:
        """Ids of a whole document, with what begins and ends it."""
        ...

    def decode(self, ids: list[int]) -> str:
        """The text of ids; control pieces say nothing, nor do ids beyond the vocabulary, which padded models write."""
        ...

    def token_bytes(self) -> list[int]:
        """For each id, how many bytes of text it stands for; control pieces stand for none."""
        ...

    def piece(self, i: int) -> bytes:
        """The bytes of text that an id stands for, which need not be whole characters; none of a control piece."""
        ...

    def name(self, i: int) -> str:
        """What the vocabulary calls an id."""
        ...


def load_tokenizer(path: str | Path) -> Tokenizer:
    """A SentencePiece .model file, Llama 3's tiktoken file, a tokenizer.json, or a folder that has one of them.

    Raises DataError when it is missing or unfit; a tokenizer that changes some texts causes a warning.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        found = [path / name for name in (MODEL_FILE, JSON_FILE) if (path / name).exists()]
        if not found:
            raise DataError(f"{path}: no tokenizer there; {KINDS}")
        # Some folders carry a tokenizer.model of another kind beside the tokenizer.json.
        if len(found) == 2:
            try:
                return load_tokenizer(found[0])
            except DataError:
                return load_tokenizer(found[1])
        path = found[0]
    try:
        tokenizer = _load(path)
    except OSError as error:
        raise DataError(f"data.tokenizer.path={path}: {error.strerror}; {KINDS}") from None
    _warn_of_changes(tokenizer, path)
    return tokenizer


def _load(path: Path) -> Tokenizer:
    content = path.read_bytes()
    if path.suffix == ".json":
        config, chat = path.with_name(CONFIG_FILE), path.with_name(CHAT_FILE)
        settings = config.read_bytes() if config.exists() else b"{}"
        return JsonTokenizer(content, settings, str(path), chat.read_bytes() if chat.exists() else None)
    # Llama 3's file has the name of a SentencePiece model.
    if is_tiktoken(content):
        return TiktokenTokenizer(content, str(path))
    return SentencePieceTokenizer(content, str(path))


def _warn_of_changes(tokenizer: Tokenizer, path: Path) -> None:
    """Some normalise the text: one that was trained so serves, but what it decodes is not what it read."""
    for text in PROBES:
        back = tokenizer.decode(tokenizer.encode(text))
        if back != text:
            logger.warning("%s: not byte-exact; it makes %s of the text %s", path, ascii(back), ascii(text))
            return
