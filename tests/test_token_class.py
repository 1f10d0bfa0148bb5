"""The class of a token: by hand, and against regular expressions over whole texts with two kinds of tokenizers."""

import argparse
import json
import keyword
import re
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from data.sources.documents import Document
from data.tokenizers.json_tokenizer import JsonTokenizer
from data.tokenizers.sentencepiece_tokenizer import train_tokenizer
from eval.drafts.classes import Kind, Language, Piece, TokenClass, kind_of, language_of

C, P = TokenClass, Piece
CODE = Path(argparse.__file__).read_text()
PROSE = "The cat sat on 12 mats, in 1984; it's not for us.\n\n  If it rains, we go home at 3.14 o'clock.\n" * 40
OTHER_PROSE = "\nUnfamiliar vocabularies, seldom encountered (1,234 of them),\n\n  were\tsplit 0x1F times.\n"

# (before, piece) -> in code.
CODE_CASES: dict[tuple[str | bytes, str | bytes], Kind] = {
    ("", "self"): Kind(C.identifier, P.first),
    ("x = ", "foo"): Kind(C.identifier, P.first),
    ("x =", " foo"): Kind(C.identifier, P.first),
    ("fo", "o_bar"): Kind(C.identifier, P.later),
    ("x", "1"): Kind(C.identifier, P.later),
    ("x_", "2)"): Kind(C.identifier, P.later),
    ("self", "._a"): Kind(C.punctuation),
    ("", " return"): Kind(C.keyword, P.first),
    ("re", "turn"): Kind(C.keyword, P.later),
    ("return", "ed"): Kind(C.identifier, P.later),
    ("", "in"): Kind(C.keyword, P.first),
    ("pr", "in"): Kind(C.identifier, P.later),
    ("pr", " in"): Kind(C.keyword, P.first),
    ("", "not in"): Kind(C.keyword, P.first),
    ("a[", "12"): Kind(C.number, P.first),
    ("1", "2"): Kind(C.number, P.later),
    ("0", "xff"): Kind(C.number, P.later),
    ("3.", "14"): Kind(C.number, P.first),
    ("3", "."): Kind(C.punctuation),
    ("a", " +="): Kind(C.punctuation),
    ("f(a", "):\n"): Kind(C.punctuation),
    ("f():", "\n"): Kind(C.newline),
    ("f():", "\r\n"): Kind(C.newline),
    ("f():", "  \n    "): Kind(C.newline),
    ("f():", "\n    return"): Kind(C.newline),
    ("f():\n", "    "): Kind(C.indentation),
    ("f():\n  ", "\t"): Kind(C.indentation),
    ("", "  "): Kind(C.indentation),
    ("f():", "  "): Kind(C.space),
    ("f():\n  x", " "): Kind(C.space),
    ("a", "\u00a0"): Kind(C.space),
    ("a", ""): Kind(C.special),
    ("", b"\xe6\x97"): Kind(C.partial),
    (b"\xe6\x97", b"\xa5"): Kind(C.partial),
    ("", b" \xe6"): Kind(C.partial),
    ("", "\ufffd"): Kind(C.punctuation),
    ("", b"ab\xe6"): Kind(C.identifier, P.first),
    ("größ", "er"): Kind(C.identifier, P.later),
    ("日", "本"): Kind(C.identifier, P.later),
    ("e", "\u0301"): Kind(C.identifier, P.later),
    ("x" * 1000, "y"): Kind(C.identifier, P.later),
}


def raw(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


@pytest.mark.parametrize(("case", "expected"), CODE_CASES.items(), ids=lambda c: ascii(c)[:40])
def test_by_hand(case: tuple[str | bytes, str | bytes], expected: Kind) -> None:
    before, piece = map(raw, case)
    assert kind_of(before, piece, Language.code) == expected
    is_word = expected.token_class in (C.identifier, C.keyword)
    assert kind_of(before, piece, Language.prose) == (Kind(C.word, expected.piece) if is_word else expected)


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Any]:
    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    fast.train_from_iterator([CODE, PROSE], trainer)
    config = json.dumps({"eos_token": "<|endoftext|>"}).encode()
    return {
        "sentencepiece": train_tokenizer([Document("a", CODE), Document("b", PROSE)], 900, 1, "a"),
        "byte-level": JsonTokenizer(fast.to_str().encode(), config),
    }


@pytest.mark.parametrize("name", ["sentencepiece", "byte-level"])
@pytest.mark.parametrize(("text", "language"), [(CODE[:20_000], Language.code), (OTHER_PROSE + PROSE, Language.prose)])
def test_whole_texts(tokenizers: dict[str, Any], name: str, text: str, language: Language) -> None:
    """Words are found in the whole text, of ASCII, instead of token by token."""
    assert text.isascii()
    tokenizer = tokenizers[name]
    word_at = {i: m for m in re.finditer(r"\w+", text) for i in range(*m.span())}
    margin = {i for m in re.finditer(r"^[ \t]+", text, re.M) for i in range(*m.span())}
    at, seen = 0, set()
    for token in tokenizer.encode(text):
        piece = tokenizer.piece(token)
        kind = kind_of(text[:at].encode(), piece, language)
        end = at + len(piece)
        first = at + len(piece) - len(piece.lstrip(b" \t"))
        if first == end:
            expected = Kind(C.indentation if at in margin else C.space)
        elif text[first] in "\r\n":
            expected = Kind(C.newline)
        elif first in word_at:
            match = word_at[first]
            so_far = text[match.start() : min(match.end(), end)]
            is_keyword = keyword.iskeyword(so_far) and language is Language.code
            usual = C.keyword if is_keyword else C.identifier if language is Language.code else C.word
            expected = Kind(C.number if so_far[0].isdigit() else usual, P.first if match.start() == first else P.later)
        else:
            expected = Kind(C.punctuation)
        assert kind == expected, (text[max(0, at - 20) : at], piece)
        seen.add(kind)
        at = end
    assert at == len(text)
    main = C.identifier if language is Language.code else C.word
    assert seen >= {Kind(main, P.first), Kind(main, P.later), Kind(C.punctuation), Kind(C.newline)}
    assert C.special is kind_of(b"a", tokenizer.piece(tokenizer.eos_id), language).token_class


def test_code_is_told_from_prose() -> None:
    assert language_of([CODE[i : i + 200] for i in range(0, 20_000, 1000)]) is Language.code
    assert language_of([PROSE, "Utterance: wake me (please) at 7\nParse:\n"]) is Language.prose
    assert language_of([]) is Language.prose
