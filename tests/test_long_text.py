"""Texts of any length become tokens in pieces, which decoded are the text."""

from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_TEXT

from data.config import SourceConfig
from data.sources.documents import Document
from data.tokenizers.long_text import document_tokens
from data.tokenizers.sentencepiece_tokenizer import train_tokenizer
from data.tokenizers.tokenizer import Tokenizer
from data.tokenizers.training_sample import training_sample

ONE_LINE = TINY_TEXT.replace("\n", " ")
ONE_WORD = ONE_LINE.replace(" ", "_")
OTHERS = "日本語のテキスト\u2581 é\n\n\n  \t" * 300


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([Document("a", TINY_TEXT)], 400, 1, "a")


@pytest.mark.parametrize("text", [TINY_TEXT, ONE_LINE, ONE_WORD, OTHERS, "\n" * 2000, " " * 2000])
@pytest.mark.parametrize("most", [70, 1000])
def test_no_character_is_lost(tokenizer: Tokenizer, text: str, most: int) -> None:
    ids = document_tokens(tokenizer, text, most)
    assert ids.dtype == np.uint32
    assert (ids[0], ids[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
    assert tokenizer.bos_id not in ids[1:]
    assert tokenizer.eos_id not in ids[:-1]
    assert tokenizer.decode(ids.tolist()) == text


def test_up_to_the_length_of_a_piece_nothing_changes(tokenizer: Tokenizer) -> None:
    whole = tokenizer.encode_document(TINY_TEXT)
    assert document_tokens(tokenizer, TINY_TEXT, len(TINY_TEXT)).tolist() == whole
    in_pieces = document_tokens(tokenizer, TINY_TEXT, 5000)
    assert abs(len(in_pieces) - len(whole)) <= len(TINY_TEXT) // 5000, "at most a token more for each seam"


def test_no_piece_is_longer(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    encode = tokenizer.encode

    def counted(text: str) -> list[int]:
        lengths.append(len(text))
        return encode(text)

    monkeypatch.setattr(tokenizer, "encode", counted)
    document_tokens(tokenizer, ONE_WORD, 1000)
    assert max(lengths) <= 1001, "a piece and the line end before it"


def test_a_tokenizer_is_trained_on_lines_of_any_length() -> None:
    assert train_tokenizer([Document("a", ONE_WORD)], 400, 1, "a").vocab_size == 400


@pytest.mark.parametrize("max_bytes", [100, 10_000])
def test_of_few_and_large_files_some_text_is_drawn(tmp_path: Path, max_bytes: int) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(TINY_TEXT * 10)
    sample = training_sample({"a": SourceConfig(path=str(tmp_path))}, 0.05, max_bytes)
    assert {len(document.text) for document in sample} == {len(TINY_TEXT) * 10}


def test_of_a_document_beyond_the_limit_no_more_than_that_is_trained_on() -> None:
    marks = "#" * 50  # of which a piece is made where they are trained on

    def n_tokens(text: str) -> int:
        return len(train_tokenizer([Document("a", text)], 400, 1, "a").encode(marks))

    megabyte = (TINY_TEXT * 11)[: 10**6]
    assert n_tokens(megabyte + marks * 1000) > n_tokens(marks * 1000 + megabyte)


def test_a_file_of_one_long_line(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    from data.prepared.preparation import prepare_shards
    from data.prepared.progress import Settings
    from data.prepared.shards import open_part, read_manifest

    monkeypatch.setattr("data.tokenizers.long_text.document_tokens.__defaults__", (1000,))
    (tmp_path / "a.txt").write_text(ONE_LINE)
    prepare_shards(SourceConfig(path=str(tmp_path / "a.txt")), tokenizer, tmp_path / "s", Settings(0.1, workers=1))
    tokens = [open_part(tmp_path / "s", read_manifest(tmp_path / "s"), part) for part in ("train", "validation")]
    assert "".join(tokenizer.decode(t.read(0, len(t)).tolist()) for t in tokens) == ONE_LINE
