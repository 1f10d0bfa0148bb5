"""The tokenizer is byte-exact, and counts bytes."""

import argparse
import random
from pathlib import Path

import pytest

from data.config import DataError
from data.sentencepiece_tokenizer import SentencePieceTokenizer, train_tokenizer
from data.sources import Document
from data.tokenizer import load_tokenizer

TEXT = Path(argparse.__file__).read_text() + "\tif größer:\r\n"


@pytest.fixture(scope="module")
def tokenizer() -> SentencePieceTokenizer:
    return train_tokenizer([Document("a", TEXT)], vocab_size=600, max_megabytes=1, name="a")


ODD = [
    "",
    " ",
    "  leading",
    "trailing  ",
    "\n\n",
    "\t\tx\r\n",
    "\u2581",
    "a\u2581 \u2581\u2581b",
    "日本語 😀",
    "\x00\x7f",
]


@pytest.mark.parametrize("text", [*ODD, "<s></s><unk><0x0A>", "e\u0301", "\ufeffbom", "\u00a0nbsp\u3000", TEXT])
def test_round_trip(tokenizer: SentencePieceTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    table = tokenizer.token_bytes()
    assert sum(table[i] for i in ids) == len(text.encode())


def test_round_trip_of_random_strings(tokenizer: SentencePieceTokenizer) -> None:
    rng = random.Random(0)
    table = tokenizer.token_bytes()
    parts = ["\u2581", " ", "\n", "\t", "\r", "def", "x", "ß", "😀", "<s>", "\x00", "9", "\u200d"]
    for _ in range(2000):
        text = "".join(rng.choice(parts) for _ in range(rng.randrange(15)))
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert sum(table[i] for i in ids) == len(text.encode())


def test_documents_are_marked(tokenizer: SentencePieceTokenizer) -> None:
    ids = tokenizer.encode_document("x")
    assert (ids[0], ids[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
    assert tokenizer.decode(ids) == "x"


def test_trained_size_and_whitespace_pieces(tokenizer: SentencePieceTokenizer) -> None:
    assert tokenizer.vocab_size == 600
    assert len(tokenizer.encode("        ")) == 1, "indentation is one piece"


def test_training_is_deterministic(tokenizer: SentencePieceTokenizer) -> None:
    again = train_tokenizer([Document("a", TEXT)], vocab_size=600, max_megabytes=1, name="a")
    assert again.files == tokenizer.files


def test_too_little_text_is_told_in_one_line() -> None:
    with pytest.raises(DataError, match=r"^data\.tokenizer\.vocab_size=6000: no tokenizer of that size .*$") as error:
        train_tokenizer([Document("a", "x = 1\n")], vocab_size=6000, max_megabytes=1, name="a.py")
    assert "\n" not in str(error.value)


def test_files_that_are_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.tokenizer\.path=.*No such file"):
        load_tokenizer(tmp_path / "none.model")
    (tmp_path / "bad.model").write_bytes(b"hello")
    with pytest.raises(DataError, match="not a SentencePiece model"):
        load_tokenizer(tmp_path / "bad.model")
