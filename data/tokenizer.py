"""What the project asks of a tokenizer, and which one a file is."""

from pathlib import Path
from typing import Protocol

from data.config import DataError
from data.json_tokenizer import CONFIG_FILE, JSON_FILE, JsonTokenizer
from data.sentencepiece_tokenizer import MODEL_FILE, SentencePieceTokenizer


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
        """The text of ids; control pieces say nothing."""
        ...

    def token_bytes(self) -> list[int]:
        """For each id, how many bytes of text it stands for; control pieces stand for none."""
        ...


def load_tokenizer(path: str | Path) -> Tokenizer:
    """A SentencePiece .model file, a Hugging Face tokenizer.json, or a folder that has one of them.

    Raises DataError when it is missing or unfit.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        found = [path / name for name in (MODEL_FILE, JSON_FILE) if (path / name).exists()]
        if not found:
            raise DataError(f"{path}: no tokenizer ({MODEL_FILE} or {JSON_FILE}) there")
        # Some folders carry a tokenizer.model that is no SentencePiece model, beside the tokenizer.json.
        if len(found) == 2:
            try:
                return load_tokenizer(found[0])
            except DataError:
                return load_tokenizer(found[1])
        path = found[0]
    try:
        content = path.read_bytes()
        if path.suffix != ".json":
            return SentencePieceTokenizer(content, str(path))
        config = path.with_name(CONFIG_FILE)
        return JsonTokenizer(content, config.read_bytes() if config.exists() else b"{}", str(path))
    except OSError as error:
        raise DataError(
            f"data.tokenizer.path={path}: {error.strerror}; give a SentencePiece .model file or a tokenizer.json"
        ) from None
