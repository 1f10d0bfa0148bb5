"""The tokenizer is byte-exact, and counts bytes."""

import argparse
import io
import json
import logging
import random
from pathlib import Path

import pytest
import sentencepiece as spm
from tokenizers import Tokenizer, normalizers

from data.config import DataError
from data.sources.documents import Document
from data.tokenizers.json_tokenizer import JsonTokenizer
from data.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer, train_tokenizer
from data.tokenizers.tokenizer import load_tokenizer
from models.storage.hf_tokenizer import write_tokenizer

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
    assert b"".join(map(tokenizer.piece, ids)) == text.encode()


def random_texts(n: int) -> list[str]:
    rng = random.Random(0)
    parts = ["\u2581", " ", "\n", "\t", "\r", "def", "x", "ß", "😀", "<s>", "\x00", "9", "\u200d"]
    return ["".join(rng.choice(parts) for _ in range(rng.randrange(15))) for _ in range(n)]


def test_round_trip_of_random_strings(tokenizer: SentencePieceTokenizer) -> None:
    table = tokenizer.token_bytes()
    for text in random_texts(2000):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert sum(table[i] for i in ids) == len(text.encode())


def test_documents_are_marked(tokenizer: SentencePieceTokenizer) -> None:
    ids = tokenizer.encode_document("x")
    assert (ids[0], ids[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
    assert tokenizer.decode(ids) == "x"


def test_ids_beyond_the_vocabulary_say_nothing(tokenizer: SentencePieceTokenizer) -> None:
    """Models may have more rows than their tokenizer has pieces, and write those."""
    assert tokenizer.decode([*tokenizer.encode("x"), tokenizer.vocab_size, tokenizer.vocab_size + 40]) == "x"


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
    with pytest.raises(DataError, match=r"not a SentencePiece model, nor .* tiktoken file; .* tokenizer\.json"):
        load_tokenizer(tmp_path / "bad.model")
    with pytest.raises(DataError, match=r"no tokenizer there; .* SentencePiece .* tiktoken .* tokenizer\.json"):
        load_tokenizer(tmp_path)


def trained_by_library(**options: object) -> bytes:
    model = io.BytesIO()
    spm.SentencePieceTrainer.Train(
        sentence_iterator=iter(TEXT.split("\n")),
        model_writer=model,
        model_type="bpe",
        vocab_size=500,
        byte_fallback=True,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def prefixed() -> bytes:
    """A model that, like Llama 2's, puts a space before the text."""
    return trained_by_library(normalization_rule_name="identity", remove_extra_whitespaces=False)


def test_a_space_is_put_before_the_text_once(prefixed: bytes) -> None:
    tokenizer, plain = SentencePieceTokenizer(prefixed), spm.SentencePieceProcessor(model_proto=prefixed)
    table = tokenizer.token_bytes()
    for text in [*ODD, " \u2581", "\u2581def", "def\u2581def", TEXT, *random_texts(2000)]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode(tokenizer.encode_document(text)) == text
        assert sum(table[i] for i in ids) == len(text.encode("utf-8")) + bool(text), "the space before it"
        if "\u2581" not in text:
            assert ids == plain.EncodeAsIds(text)
    mark = [f"<0x{b:02X}>" for b in "\u2581".encode()]
    x = [plain.IdToPiece(i) for i in tokenizer.encode("\u2581x\u2581x")]
    assert x == ["\u2581", *mark, "x", *mark, "x"]


@pytest.mark.parametrize("metaspace", [False, True])
def test_converted_to_tokenizer_json_it_is_the_same(prefixed: bytes, tmp_path: Path, metaspace: bool) -> None:
    (tmp_path / "tokenizer.model").write_bytes(prefixed)
    write_tokenizer(tmp_path / "tokenizer.model", tmp_path, 512)
    layout = json.loads((tmp_path / "tokenizer.json").read_text())
    assert "Prepend" in str(layout["normalizer"])
    if metaspace:  # as transformers 5 writes it: no space before a space
        layout["normalizer"] = None
        step = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}
        layout["pre_tokenizer"] = step
        (tmp_path / "tokenizer.json").write_text(json.dumps(layout))
    tokenizer, theirs = SentencePieceTokenizer(prefixed), load_tokenizer(tmp_path / "tokenizer.json")
    assert isinstance(theirs, JsonTokenizer)
    assert theirs.token_bytes() == tokenizer.token_bytes()
    for text in [*ODD, "\u2581def", TEXT, *random_texts(1000)]:
        assert theirs.encode(text) == tokenizer.encode(text)
        assert theirs.decode(theirs.encode(text)) == text


def test_without_a_space_before_it_the_converted_one_is_the_same(
    tokenizer: SentencePieceTokenizer, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.model").write_bytes(tokenizer.files["tokenizer.model"])
    write_tokenizer(tmp_path / "tokenizer.model", tmp_path, 512)
    theirs = load_tokenizer(tmp_path / "tokenizer.json")
    for text in [*ODD, *random_texts(1000)]:
        assert theirs.encode(text) == tokenizer.encode(text)
        assert theirs.decode(theirs.encode(text)) == text


def test_a_tokenizer_that_changes_text_is_told_once(
    prefixed: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exact, changed = tmp_path / "exact.model", tmp_path / "changed.model"
    exact.write_bytes(prefixed)
    changed.write_bytes(trained_by_library(normalization_rule_name="nmt_nfkc"))
    write_tokenizer(exact, tmp_path, 512)
    composing = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    composing.normalizer = normalizers.Sequence([normalizers.NFC(), composing.normalizer])
    with caplog.at_level(logging.WARNING):
        load_tokenizer(exact)
        load_tokenizer(tmp_path / "tokenizer.json")
        assert not caplog.records
        composing.save(str(tmp_path / "tokenizer.json"))
        for path in (changed, tmp_path / "tokenizer.json"):
            load_tokenizer(path)
            [record] = caplog.records
            assert record.getMessage().startswith(f"{path}: not byte-exact; it makes ")
            caplog.clear()
