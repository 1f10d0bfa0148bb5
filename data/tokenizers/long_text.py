"""A text of any length as tokens: in pieces, because tokenizers hold dozens of times the text's size in memory."""

from array import array
from collections.abc import Iterator

import numpy as np

from data.tokenizers.tokenizer import Tokenizer

PIECE_CHARACTERS = 1 << 22
"""Texts up to this length are encoded in one go."""
LOOK_AHEAD = 64
"""Characters after a cut that show whether a piece may begin there."""
TRIES = 1000


def document_tokens(tokenizer: Tokenizer, text: str, most: int = PIECE_CHARACTERS) -> np.ndarray:
    """Ids of a whole document, with what begins and ends it, as uint32.

    Decoded they are the text, whatever its length. Of a text longer than `most` characters each piece is encoded for
    itself, so that around a seam the tokens can be others than those of the text in one go.
    """
    if len(text) <= most:
        return as_array(tokenizer.encode_document(text))
    first, *rest = _pieces(tokenizer, text, most)
    ids = [as_array(tokenizer.encode_document(first)[:-1])]  # without the token that ends a document
    ids += [as_array(continuation(tokenizer, piece)) for piece in rest]
    return np.concatenate([*ids, as_array([tokenizer.eos_id])])


def as_array(ids: list[int]) -> np.ndarray:
    """uint32, by way of an array of Python's, which takes half the time of numpy."""
    return np.frombuffer(array("I", ids), np.uint32)


def continuation(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a text in the middle of a document: without the space that some tokenizers put before a text."""
    before = tokenizer.encode("\n")
    ids = tokenizer.encode("\n" + text)
    return ids[len(before) :] if ids[: len(before)] == before else tokenizer.encode(text)


def _pieces(tokenizer: Tokenizer, text: str, most: int) -> Iterator[str]:
    """The text in pieces of at most `most` characters, cut after a line or, in a longer line, after a word."""
    before = tokenizer.encode("\n")
    start = 0
    while len(text) - start > most:
        end = _cut(tokenizer, before, text, start, start + most)
        yield text[start:end]
        start = end
    yield text[start:]


def _cut(tokenizer: Tokenizer, before: list[int], text: str, start: int, most: int) -> int:
    """The last good place before `most` at which a token cannot reach across from a line end put there."""
    places = (text.rfind(mark, start + 1, most) + 1 for mark in ("\n", " "))
    for place in (*places, *range(most, max(start + 1, most - TRIES), -1)):
        ahead = text[place : place + LOOK_AHEAD]
        if place > start and tokenizer.encode("\n" + ahead)[: len(before)] == before:
            return place
    return most
