"""Tokens as pages show them: parts of characters, blanks, controls, marks of direction; all is there."""

import random
import unicodedata
from types import SimpleNamespace
from typing import Any

import pytest

from data.sources.documents import Document
from data.tokenizers.sentencepiece_tokenizer import train_tokenizer
from eval.pages.token_display import display_alone, display_by_id, display_in_text
from eval.prompts.text import plain_text

BOS = 1000


def tokenizer_of(*pieces: bytes) -> Any:
    """Ids are places in the list; 1000 is a control piece."""
    return SimpleNamespace(
        vocab_size=BOS + 1, piece=lambda i: b"" if i == BOS else pieces[i], name=lambda i: "<s>" if i == BOS else "?"
    )


ALONE = {
    b"the": ["the"],
    b" the": ["", " ", "the"],
    b"    ": ["", " ", "", " ", "", " ", "", " "],
    b"a\n": ["a", "\n"],
    b"\t": ["", "\t"],
    b"\r\n": ["", "\u240d", "", "\n"],
    b"\x00": ["", "\u2400"],
    b"\x7f": ["", "\u2421"],
    b"\xf0\x9f": ["", "F0 9F"],
    b"a\x98\x80b": ["a", "98", "", "80", "b"],
    b"\xff": ["", "FF"],
    "\u2581".encode(): ["\u2581"],
    "\ufffd".encode(): ["\ufffd"],
    "\u202e".encode(): ["", "U+202E"],
    "a\u200db".encode(): ["a", "U+200D", "b"],
    "\u00a0\u3000".encode(): ["", "U+00A0", "", "U+3000"],
    "\u3164".encode(): ["", "U+3164"],
    "\u2028".encode(): ["", "U+2028"],
    "\u0301".encode(): ["", "\u25cc\u0301"],
    "e\u0301".encode(): ["e\u0301"],
    " \u0301".encode(): ["", " ", "", "\u25cc\u0301"],
    "שלום".encode(): ["שלום"],
    "漢 ".encode() + b"\xe5": ["漢", " ", "", "E5"],
    b"</script><b>&amp;": ["</script><b>&amp;"],
}


@pytest.mark.parametrize(("piece", "expected"), ALONE.items(), ids=lambda x: ascii(x) if isinstance(x, bytes) else "")
def test_a_token_alone(piece: bytes, expected: list[str]) -> None:
    assert display_alone(tokenizer_of(piece), 0) == expected


def test_control_pieces_have_their_name() -> None:
    tokenizer = tokenizer_of(b"a")
    assert display_alone(tokenizer, BOS) == ["", "<s>"]
    assert plain_text(tokenizer, BOS) == "<s>"
    assert display_alone(tokenizer, BOS + 1) == ["", f"token {BOS + 1}"], "the model's vocabulary is padded"
    assert display_by_id(tokenizer, [0, BOS, 0]) == {"0": ["a"], str(BOS): ["", "<s>"]}


def test_a_character_of_several_tokens_stands_in_the_last() -> None:
    a, b = "😀".encode()[:3], "😀".encode()[3:]
    tokenizer = tokenizer_of(a, b, b"x", b"\xe5")
    assert display_in_text(tokenizer, [2, 0, 1, 2]) == [["x"], [], ["😀"], ["x"]]
    assert display_in_text(tokenizer, [0]) == [["", "F0 9F 98"]], "nothing follows"
    assert display_in_text(tokenizer, [0, BOS, 1]) == [["", "F0 9F 98"], ["", "<s>"], ["", "80"]], "nor here"
    assert display_in_text(tokenizer, [0, 2]) == [[], ["", "F0 9F 98", "x"]], "no token is lost"
    assert display_in_text(tokenizer, [3, 0, 1]) == [[], ["", "E5"], ["😀"]]


def restored(shown: list[list[str]]) -> str:
    """The text that marks were made of."""
    out = ""
    for token in shown:
        for i, part in enumerate(token):
            if i % 2 == 0 or part in (" ", "\t", "\n"):
                out += part
            elif part.startswith("U+"):
                out += chr(int(part[2:], 16))
            elif part.startswith("\u25cc"):
                out += part[1:]
            else:
                out += "\x7f" if part == "\u2421" else chr(ord(part) - 0x2400)
    return out


def test_nothing_is_hidden_and_nothing_is_lost() -> None:
    tokenizer = train_tokenizer([Document("a", "the cat sat on the mat\n" * 50)], 280, 1, "a")
    rng = random.Random(0)
    parts = [
        "the",
        " ",
        "\n",
        "\t",
        "\r",
        "\x00",
        "\u202e",
        "\u200d",
        "\u00a0",
        "\u2581",
        "é",
        "e\u0301",
        "漢",
        "😀",
        "\u05d0",
    ]
    for _ in range(500):
        text = "".join(rng.choice(parts) for _ in range(rng.randrange(1, 12)))
        shown = display_in_text(tokenizer, tokenizer.encode(text))
        assert restored(shown) == text
        for token in shown:
            assert all(unicodedata.category(c)[0] not in "CZ" for text in token[::2] for c in text)
