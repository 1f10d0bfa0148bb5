"""A byte-level tokenizer.json, as Llama 3 and SmolLM2 have it, behind our interface."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from data.config import DataError
from data.tokenizers.json_tokenizer import JsonTokenizer
from data.tokenizers.tokenizer import load_tokenizer

TEXTS = [
    "def f(x):\n\treturn x\r\n",
    "naïve 漢字 \U0001f600  two  spaces",
    "",
    "<|endoftext|> is text here",
    "\x00\u2581",
    "\u2581a \u2581\u2581b  ",
    "  \t\tleading\r\n\r\n",
    "e\u0301 \u00e9 \ufb01 \ufeffbom\u00a0\u3000\x7f",
]


def byte_level_bpe(folder: Path) -> Path:
    """The folder, with a tokenizer in it."""
    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    fast.train_from_iterator(TEXTS * 3, trainer)
    fast.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<|endoftext|>"}}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_level_bpe(tmp_path_factory.mktemp("tokenizer"))


@pytest.mark.parametrize("text", TEXTS)
def test_round_trip_and_bytes(folder: Path, text: str) -> None:
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([*ids, tokenizer.vocab_size]) == text, "what is beyond the vocabulary says nothing"
    assert tokenizer.eos_id not in ids, "the name of a special token is text like any other"
    table = tokenizer.token_bytes()
    assert sum(table[i] for i in ids) == len(text.encode("utf-8"))
    assert b"".join(map(tokenizer.piece, ids)) == text.encode("utf-8")
    assert (tokenizer.piece(tokenizer.eos_id), tokenizer.name(tokenizer.eos_id)) == (b"", "<|endoftext|>")
    assert table[tokenizer.eos_id] == 0
    assert tokenizer.encode_document(text) == [*ids, tokenizer.eos_id], "nothing begins a text here"
    assert len(table) == tokenizer.vocab_size


def test_in_a_prompt_special_tokens_are_recognised(folder: Path) -> None:
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    assert tokenizer.encode_prompt("a<|endoftext|>b")[1] == tokenizer.eos_id


def test_the_files_are_all_of_it(folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(folder)
    for name, content in tokenizer.files.items():
        (tmp_path / name).write_bytes(content)
    assert load_tokenizer(tmp_path).encode_document(TEXTS[0]) == tokenizer.encode_document(TEXTS[0])


def test_what_is_no_tokenizer(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": 1}')
    with pytest.raises(DataError, match=r"tokenizer\.json: not a Hugging Face tokenizer"):
        load_tokenizer(tmp_path)
    content = (folder / "tokenizer.json").read_text().replace("<|endoftext|>", "<|stop|>")
    with pytest.raises(DataError, match="no token ends a text; name it as eos_token"):
        JsonTokenizer(content.encode(), b"{}")
