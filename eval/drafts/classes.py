"""The class of a token: what it begins in the text it stands in. docs/rejections.md has the definitions in words.

A class is found from a token's bytes and the bytes before it, never from those after it: what would have followed a
rejected draft is not known, and accepted ones must not be distinguished by what follows them.
"""

import keyword
import unicodedata
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

# Bytes of the text before a token that are looked at: longer words and wider indentations are cut.
REACH = 256
BLANKS = " \t"
# Where more than this share of the visible characters is one of these, a text is code.
CODE_MARKS, CODE_SHARE = "(){}[]=_;", 0.04


class Language(StrEnum):
    """What words are."""

    auto = "auto"
    """Code where more than 4 % of the prompts' visible characters are among ( ) { } [ ] = _ ; and else prose."""
    code = "code"
    """Python's keywords, and identifiers."""
    prose = "prose"
    """Words."""


class TokenClass(StrEnum):
    """By the first character of a token that is no blank (space or tab)."""

    identifier = "identifier"
    """A letter, mark, digit or underscore, in a word that begins with no digit; in code."""
    keyword = "keyword"
    """Part of a word that is a keyword of Python once this token is read."""
    word = "word"
    """An identifier or keyword, in prose."""
    number = "number"
    """A letter, mark, digit or underscore, in a word that begins with a digit."""
    punctuation = "punctuation"
    """Any other character that can be seen: operators, brackets, quotes."""
    newline = "newline"
    """A line's end, whatever follows it in the token."""
    indentation = "indentation"
    """Nothing but blanks, with nothing but blanks before them in the line."""
    space = "space"
    """Nothing but blanks elsewhere, or another invisible character."""
    partial = "part of a character"
    """Bytes that are no whole character."""
    special = "special"
    """A control piece, which stands for no text: the end of the text."""


class Piece(StrEnum):
    """Where in its word a token begins."""

    first = "first"
    """At the word's beginning, or at blanks before it."""
    later = "later"
    """After a part of the word that an earlier token holds."""


class Kind(NamedTuple):
    """What a token is."""

    token_class: TokenClass
    piece: Piece | None = None
    """None for a token that neither begins a word nor belongs to one."""


def kind_of(before: bytes, piece: bytes, language: Language) -> Kind:
    """The class of a token that stands for the bytes `piece` after the bytes `before`, in code or prose."""
    if not piece:
        return Kind(TokenClass.special)
    context = before[-REACH:].decode("utf-8", errors="replace")
    if not (rest := piece.lstrip(BLANKS.encode())):
        begins_line = not context.rpartition("\n")[2].strip(BLANKS)
        return Kind(TokenClass.indentation if begins_line else TokenClass.space)
    text = rest.decode("utf-8", errors="replace")
    first = text[0]
    if first == "\ufffd" and not rest.startswith("\ufffd".encode()):
        return Kind(TokenClass.partial)
    if first in "\r\n":
        return Kind(TokenClass.newline)
    if not _of_word(first):
        return Kind(TokenClass.space if unicodedata.category(first)[0] in "CZ" else TokenClass.punctuation)
    head = "" if len(rest) < len(piece) else _word_at_end(context)
    word = head + text[: next((i for i, c in enumerate(text) if not _of_word(c)), len(text))]
    return Kind(_of(word, language), Piece.later if head else Piece.first)


def language_of(texts: Iterable[str]) -> Language:
    """Code or prose, by the share of code's marks among the characters that can be seen."""
    seen = [c for text in texts for c in text if not c.isspace()]
    marks = sum(c in CODE_MARKS for c in seen)
    return Language.code if marks > CODE_SHARE * len(seen) else Language.prose


def _of(word: str, language: Language) -> TokenClass:
    if word[0].isdigit():
        return TokenClass.number
    if language is Language.prose:
        return TokenClass.word
    return TokenClass.keyword if keyword.iskeyword(word) else TokenClass.identifier


def _of_word(c: str) -> bool:
    return c.isalnum() or c == "_" or unicodedata.category(c)[0] == "M"


def _word_at_end(text: str) -> str:
    n = next((i for i, c in enumerate(reversed(text)) if not _of_word(c)), len(text))
    return text[len(text) - n :]
