"""Hugging Face's tokenizer.json behind our interface."""

import json
import re
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer as Fast

from conf.errors import reason
from data.config import DataError
from data.tokenizers.document import as_document

JSON_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
CHAT_FILE = "chat_template.jinja"
# Names of what ends a document, where tokenizer_config.json does not say.
END = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
SPACE_MARK = "\u2581"
_BYTE_NAME = re.compile("<0x([0-9A-Fa-f]{2})>")


class JsonTokenizer:
    """A tokenizer.json; tokenizer_config.json beside it says which tokens begin and end a text."""

    def __init__(self, content: bytes, config: bytes, name: str = JSON_FILE, chat: bytes | None = None) -> None:
        """`chat`: a chat template, carried along. Raises DataError for no tokenizer, or where nothing ends a text."""
        self.files = {JSON_FILE: content, CONFIG_FILE: config} | ({} if chat is None else {CHAT_FILE: chat})
        try:
            self._fast = Fast.from_str(content.decode("utf-8"))
            self._layout: dict[str, Any] = json.loads(content)
            settings: dict[str, Any] = json.loads(config)
        except Exception as error:  # tokenizers raises Exception itself
            raise DataError(f"{name}: not a Hugging Face tokenizer ({reason(error)})") from None
        self._unprefixed = {k: _without_prefix(self._layout.get(k)) for k in ("normalizer", "pre_tokenizer")}
        self._prefixes = self._unprefixed != {k: self._layout.get(k) for k in self._unprefixed}
        added = self._layout.get("added_tokens", [])
        self._added = {t["id"] for t in added}
        self._special = {t["id"] for t in added if t.get("special")}
        self._byte_level = '"ByteLevel"' in json.dumps(self._layout.get("decoder"))
        self.vocab_size: int = self._fast.get_vocab_size(with_added_tokens=True)
        self.bos_id = self._id(settings.get("bos_token"))
        ends = [self._id(token) for token in (settings.get("eos_token"), *END)]
        found = [i for i in ends if i is not None]
        if not found:
            raise DataError(f"{name}: no token ends a text; name it as eos_token in {CONFIG_FILE}")
        self.eos_id = found[0]
        # One converted from SentencePiece writes a space as U+2581; that character itself then goes through its bytes.
        bytes_of_it = [self._id(f"<0x{b:02X}>") for b in SPACE_MARK.encode("utf-8")]
        ids = [i for i in bytes_of_it if i is not None]
        is_text = self.decode(self._ids(self._fast, SPACE_MARK)) == SPACE_MARK
        self._space_mark_ids = ids if not is_text and self.decode(ids) == SPACE_MARK else []

    def _id(self, token: Any) -> int | None:
        """Id of a token, which tokenizer_config.json writes as a string or an object with content; None if unknown."""
        content = token.get("content") if isinstance(token, dict) else token
        return None if content is None else self._fast.token_to_id(content)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, in which the name of a special token is text like any other."""
        first, *rest = text.split(SPACE_MARK) if self._space_mark_ids else [text]
        # Where a space is put before a text, some put none before a space, or nothing; it is taken away all the same.
        bare = first.startswith(" ") or (not first and rest)
        ids = self._ids(self._inner, " " + first) if bare and self._prefixes else self._ids(self._fast, first)
        for part in rest:
            ids += [*self._space_mark_ids, *self._ids(self._inner, part)]
        return ids

    @staticmethod
    def _ids(fast: Fast, text: str) -> list[int]:
        fast.encode_special_tokens = True
        return list(fast.encode(text, add_special_tokens=False).ids)

    @cached_property
    def _inner(self) -> Fast:
        """The tokenizer of what is not the beginning of the text: puts no space before it."""
        return Fast.from_str(json.dumps(self._layout | self._unprefixed)) if self._prefixes else self._fast

    def encode_prompt(self, text: str) -> list[int]:
        """Ids as transformers gives them: special tokens are recognised, and added where the tokenizer adds them."""
        self._fast.encode_special_tokens = False
        return list(self._fast.encode(text, add_special_tokens=True).ids)

    def encode_document(self, text: str) -> list[int]:
        """Ids of a whole document, with what begins it (if anything does) and ends it."""
        return as_document(self.encode(text), self.bos_id, self.eos_id)

    def decode(self, ids: list[int]) -> str:
        """The text of ids; special tokens say nothing."""
        text: str = self._fast.decode(ids, skip_special_tokens=True)
        return text

    def token_bytes(self) -> list[int]:
        """For each id, how many bytes of text it stands for; special tokens stand for none."""
        return [len(self.piece(i)) for i in range(self.vocab_size)]

    def piece(self, i: int) -> bytes:
        """The bytes of text that an id stands for, which need not be whole characters; none of a special token."""
        name = self.name(i)
        if i in self._special:
            return b""
        if i in self._added:  # written as it is
            return name.encode("utf-8")
        if self._byte_level:
            return bytes(_BYTES[c] for c in name) if all(c in _BYTES for c in name) else name.encode("utf-8")
        if byte := _BYTE_NAME.fullmatch(name):
            return bytes.fromhex(byte[1])
        return name.replace(SPACE_MARK, " ").encode("utf-8")

    def name(self, i: int) -> str:
        """What the vocabulary calls an id; nothing for one it leaves out."""
        name: str | None = self._fast.id_to_token(i)
        return name or ""


def _byte_spelling() -> dict[str, int]:
    """Character -> byte of byte-level BPE: a byte that can be seen is itself, the others follow 255, in order."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [b for b in range(256) if b not in seen]
    return {chr(b): b for b in seen} | {chr(256 + i): b for i, b in enumerate(hidden)}


_BYTES = _byte_spelling()


def _without_prefix(part: Any) -> Any:
    """A step of a tokenizer.json without what puts a space before a text; None if it is nothing else."""
    if not isinstance(part, dict) or part.get("type") == "Prepend":
        return None
    if part["type"] == "Metaspace":
        return {**part, "prepend_scheme": "never"}
    steps = {
        key: [kept for step in part[key] if (kept := _without_prefix(step)) is not None]
        for key in ("normalizers", "pretokenizers")
        if key in part
    }
    return {**part, **steps}
