"""Tokens to text, as a continuation of a prompt or one by one; and the prompt in a record."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from data.config import DataError
from eval.engine.text_stream import TextStream

if TYPE_CHECKING:
    from data.tokenizers.tokenizer import Tokenizer


def continuation(tokenizer: "Tokenizer", prompt: Sequence[int], new: Sequence[int]) -> str:
    """The text that new tokens add to a prompt's; the end-of-text token says nothing."""
    stream = TextStream(tokenizer.decode, prompt)
    return stream.push(new) + stream.rest()


def first_turn(record: Mapping[str, Any], field: str, where: str, key: str) -> str:
    """The prompt in a field of a record: a text, or the first of a list of turns, as later ones need answers.

    Args:
        record: its fields.
        field: which of them.
        where: file and line, for the message.
        key: the user's key for `field`, for the message.

    Raises DataError.
    """
    value = record.get(field)
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, str):
        what = "no text in field" if field in record else "no field"
        fields = ", ".join(map(str, record))
        raise DataError(f"{where}: {what} '{field}'; fields: {fields}; choose the one with the prompt with {key}=")
    if not value:
        raise DataError(f"{where}: the prompt is empty (field '{field}')")
    if not is_text(value):
        raise DataError(f"{where}: half a surrogate pair in field '{field}'; write the character itself")
    return value


def is_text(text: str) -> bool:
    """Whether all of it can be written; bytes of a command line that are no UTF-8, and half pairs in JSON, cannot."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def plain_text(tokenizer: "Tokenizer", i: int) -> str:
    """A token's text, for files that programs read; bytes that are no whole character become U+FFFD."""
    piece = piece_of(tokenizer, i)
    return piece.decode("utf-8", errors="replace") if piece else name_of(tokenizer, i)


def piece_of(tokenizer: "Tokenizer", i: int) -> bytes:
    """The bytes of a token's text; none for an id that the tokenizer lacks, as a model's vocabulary may be padded."""
    return tokenizer.piece(i) if i < tokenizer.vocab_size else b""


def name_of(tokenizer: "Tokenizer", i: int) -> str:
    """What to call a token that has no text."""
    return (tokenizer.name(i) if i < tokenizer.vocab_size else "") or f"token {i}"
