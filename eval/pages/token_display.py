"""Tokens as a reader can see them: nothing that a token holds stays hidden.

A token is shown as a list that alternates between text and marks and begins with text: " the" is ["", " ", "the"].
A mark is a blank, tab or newline, which the page draws, or what to write in a small box: the name of a control
character or of one that cannot be seen, bytes that are no whole character in hex, the name of a special token.
"""

import unicodedata
from collections.abc import Iterable, Sequence

from data.tokenizers.tokenizer import Tokenizer
from eval.prompts.text import name_of, piece_of

DRAWN = " \t\n"

# Letters and symbols of which nothing is seen, whatever their category.
BLANK = "\u034f\u115f\u1160\u2800\u3164\uffa0"


def display_alone(tokenizer: Tokenizer, i: int) -> list[str]:
    """A token by itself; bytes of a part of a character in hex."""
    if not (piece := piece_of(tokenizer, i)):
        return ["", name_of(tokenizer, i)]
    parts, rest = _decoded(piece)
    return _alternating([*parts, rest])


def display_in_text(tokenizer: Tokenizer, ids: Sequence[int]) -> list[list[str]]:
    """Tokens that follow each other; a character of several tokens stands whole in the last one, the others have none.

    A token of which nothing is shown is an empty list.
    """
    out: list[list[str]] = []
    pending = b""
    for at, i in enumerate(ids):
        if not (piece := piece_of(tokenizer, i)):
            out.append(display_alone(tokenizer, i))
            continue
        parts, pending = _decoded(pending + piece)
        if at + 1 == len(ids) or not piece_of(tokenizer, ids[at + 1]):  # nothing comes that could complete it
            parts, pending = [*parts, pending], b""
        out.append(_alternating(parts))
    return out


def display_by_id(tokenizer: Tokenizer, ids: Iterable[int]) -> dict[str, list[str]]:
    """Each of the tokens by itself; the keys, which are ids, are strings as in any JSON."""
    return {str(i): display_alone(tokenizer, i) for i in sorted(set(ids))}


def _decoded(raw: bytes) -> tuple[list[str | bytes], bytes]:
    """Whole characters, and between them bytes that are none; and the beginning of a character at the end."""
    parts: list[str | bytes] = []
    while raw:
        try:
            return [*parts, raw.decode("utf-8")], b""
        except UnicodeDecodeError as error:
            parts.append(raw[: error.start].decode("utf-8"))
            if error.reason == "unexpected end of data":
                return parts, raw[error.start :]
            parts.append(raw[error.start : error.end])
            raw = raw[error.end :]
    return parts, b""


def _alternating(parts: Sequence[str | bytes]) -> list[str]:
    """Text and marks in turn, beginning and ending with text that is not empty; empty for no text at all."""
    out = [""]
    for part in parts:
        if isinstance(part, bytes):
            if part:
                out += [part.hex(" ").upper(), ""]
            continue
        for c in part:
            if mark := _mark(c, begins=not out[-1]):
                out += [mark, ""]
            else:
                out[-1] += c
    return out if out[-1] else out[:-1]


def _mark(c: str, *, begins: bool) -> str:
    """How to mark a character; nothing for one that can be seen as it is."""
    if c in DRAWN:
        return c
    category = unicodedata.category(c)
    if category == "Cc":
        return chr(0x2421) if c == "\x7f" else chr(0x2400 + ord(c)) if c < " " else f"U+{ord(c):04X}"
    if category[0] == "C" or category in ("Zs", "Zl", "Zp") or c in BLANK:
        return f"U+{ord(c):04X}"
    # What is put on the letter before it needs one.
    return "\u25cc" + c if begins and category[0] == "M" else ""
