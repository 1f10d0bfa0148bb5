"""Llama 3's tiktoken file behind our interface, and as tokenizer.json."""

import argparse
import base64
import random
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import sentencepiece as spm
import tiktoken
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter

from conf.llama3_tiktoken import N_SPECIAL, SPLIT
from data.config import DataError
from data.tokenizers import tiktoken_tokenizer
from data.tokenizers.tiktoken_tokenizer import MAX_RUN, TiktokenTokenizer
from data.tokenizers.tokenizer import load_tokenizer
from models.storage.errors import FormatError
from models.storage.hf_tiktoken import special_tokens
from models.storage.hf_tokenizer import write_tokenizer

# What merging leads to by one way or several, and a word (the last) that it does not lead to.
MERGED = ["th", "in", "aa", " t", "the", "aaa", " th", "aaaa", " the", "  ", "\n\n", "ß", "漢", "de", "def", "xyz"]
TEXT = Path(argparse.__file__).read_text()
ODD = [
    "",
    " ",
    "  leading",
    "trailing  ",
    "\n\n\n",
    "def f(x):\n\t\treturn  x\r\n\r\n",
    "\u2581a \u2581\u2581b",
    "日本語 😀 \U0001f1e9\U0001f1ea ß漢",
    "e\u0301 \u00e9 \ufb01 \ufeffbom \u00a0nbsp\u3000",
    "\x00\x7f\x1c",
    "<|begin_of_text|><|end_of_text|><|eot_id|>",
    "the  thethe aaaaaaa xyz xyzz I'LL 1234567",
    TEXT,
]


def content(tokens: list[bytes]) -> bytes:
    return b"".join(base64.b64encode(token) + b" %d\n" % i for i, token in enumerate(tokens))


def random_texts(n: int) -> list[str]:
    rng = random.Random(0)
    parts = [
        "\u2581",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "the",
        "a",
        "aa",
        "x",
        "xyz",
        "ß",
        "😀",
        "\x00",
        "12",
        "\u200d",
        "!",
    ]
    parts += ["e\u0301", "漢", "'S", "\u017f", "<|end_of_text|>", "</s>", "\u3000", "\x1c", "\ufb01"]
    return ["".join(rng.choice(parts) for _ in range(rng.randrange(15))) for _ in range(n)]


TOKENS = [bytes([b]) for b in reversed(range(256))] + [t.encode("utf-8") for t in MERGED]
FILE = content(TOKENS)


@pytest.fixture(scope="module")
def tokenizer() -> TiktokenTokenizer:
    return TiktokenTokenizer(FILE)


def test_round_trip_and_bytes(tokenizer: TiktokenTokenizer) -> None:
    table = tokenizer.token_bytes()
    assert len(table) == tokenizer.vocab_size == len(TOKENS) + N_SPECIAL
    assert table[tokenizer.bos_id] == table[tokenizer.vocab_size - 1] == 0
    for text in [*ODD, *random_texts(1000)]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert sum(table[i] for i in ids) == len(text.encode("utf-8"))
        assert b"".join(map(tokenizer.piece, ids)) == text.encode("utf-8")
        assert max(ids, default=0) < tokenizer.bos_id, "the name of a special token is text like any other"


def test_words_are_split_and_merged_by_rank(tokenizer: TiktokenTokenizer) -> None:
    said = [TOKENS[i].decode() for i in tokenizer.encode("the the  aaaaaaa xyz")]
    assert said == ["the", " the", " ", " ", "aaaa", "aaa", " ", "x", "y", "z"]
    assert [TOKENS[i] for i in tokenizer.encode("xyz")] == [b"xyz"], "a word that is a token, if nothing leads to it"


def test_documents_are_marked(tokenizer: TiktokenTokenizer) -> None:
    ids = tokenizer.encode("the x")
    n = len(TOKENS)
    assert tokenizer.encode_prompt("the x") == [n, *ids]
    assert tokenizer.encode_document("the x") == [n, *ids, n + 1]
    assert tokenizer.decode([n, *ids, n + 1, n + N_SPECIAL - 1, n + N_SPECIAL]) == "the x"


def test_part_of_a_character_is_no_error(tokenizer: TiktokenTokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a😀b")[2:]) == "\ufffd\ufffd\ufffdb"


@pytest.mark.parametrize("name", ["tokenizer.model", "llama3.tiktoken"])
def test_the_kind_is_seen_from_the_content(tokenizer: TiktokenTokenizer, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FILE.replace(b"\n", b"\r\n"))
    loaded = load_tokenizer(tmp_path / name)
    assert isinstance(loaded, TiktokenTokenizer)
    for file, whole in loaded.files.items():
        (tmp_path / file).write_bytes(whole)
    again = load_tokenizer(tmp_path)
    assert again.files == loaded.files
    assert again.encode_document(TEXT) == tokenizer.encode_document(TEXT)


LONG = {
    "blanks": " " * 1_200_000 + "x",
    "word": "a" * 100_001,
    "characters": "漢😀" * 40_000,
    "mixed": "the " * 9_000 + "\t" * (MAX_RUN + 1) + "th" * MAX_RUN + "\r\n" * MAX_RUN,
}


@pytest.mark.parametrize("kind", LONG)
def test_long_runs_are_cut(tokenizer: TiktokenTokenizer, kind: str) -> None:
    assert tokenizer.decode(tokenizer.encode(LONG[kind])) == LONG[kind]
    parts = list(tiktoken_tokenizer._parts(LONG[kind]))
    assert "".join(parts) == LONG[kind]
    assert len(parts) > 1
    runs = [
        run for part in parts for run in [*part.split(), *"".join(c if c.isspace() else "." for c in part).split(".")]
    ]
    assert max(map(len, runs)) == MAX_RUN


def test_text_without_long_runs_is_not_cut(tokenizer: TiktokenTokenizer) -> None:
    rng = random.Random(0)
    text = "".join(rng.choice(" x") * rng.randrange(1, MAX_RUN // 2) for _ in range(40))
    cut = list(tiktoken_tokenizer._parts(text + "y" * MAX_RUN))
    assert "".join(cut) == text + "y" * MAX_RUN
    short = "x" * MAX_RUN + " " * MAX_RUN + TEXT
    assert list(tiktoken_tokenizer._parts(short)) == [short]
    bare = tiktoken.Encoding(
        "bare", pat_str=SPLIT, mergeable_ranks={t: i for i, t in enumerate(TOKENS)}, special_tokens={}
    )
    assert tokenizer.encode(short) == bare.encode_ordinary(short)


DAMAGED = {
    "no number": (b"aGk= x", r":300: not a tiktoken rank \('aGk= x' is not base64 and a number\)"),
    "no base64": (b"a=k= 1", r":300: not a tiktoken rank \('a=k= 1' is not base64 and a number\)"),
    "cut base64": (b"aGkab 1", r":300: not a tiktoken rank \(.*\)"),
    "bytes": (b"\xff\x00 1", r":300: not a tiktoken rank \(.*xff.* is not base64 and a number\)"),
    "a rank twice": (b"aGk= 5", r":300: not a tiktoken rank \(rank 5 occurs twice\)"),
    "a token twice": (b"AA== 500", r":300: not a tiktoken rank \(its token occurs twice\)"),
    "a gap": (b"aGk= 500", r": no token has rank \d+, but one has 500"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_told_with_its_line(tmp_path: Path, kind: str) -> None:
    line, message = DAMAGED[kind]
    path = tmp_path / "tokenizer.model"
    # Blank lines put what is damaged on line 300.
    path.write_bytes(FILE + b"\n" * (299 - len(TOKENS)) + line + b"\n")
    with pytest.raises(DataError, match=message) as error:
        load_tokenizer(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    with pytest.raises(FormatError, match=r":300: not a tiktoken rank|: no token has rank \d+") as told:
        write_tokenizer(path, tmp_path, 64)
    assert str(told.value).startswith(str(path))


def test_every_byte_is_needed() -> None:
    with pytest.raises(DataError, match=r"^l3: not all 256 bytes have a rank, so some text could not be written"):
        TiktokenTokenizer(content(TOKENS[1:]), "l3")


def test_the_export_has_the_same_ids(tokenizer: TiktokenTokenizer, tmp_path: Path) -> None:
    source = tmp_path / "source.model"
    source.write_bytes(FILE)
    special = write_tokenizer(source, tmp_path, 64)
    assert special == (tokenizer.bos_id, tokenizer.eos_id)
    assert load_tokenizer(tmp_path).files == tokenizer.files, "tokenizer.model lies beside tokenizer.json"
    exported = load_tokenizer(tmp_path / "tokenizer.json")
    assert (exported.vocab_size, exported.bos_id, exported.eos_id) == (tokenizer.vocab_size, *special)
    assert exported.token_bytes() == tokenizer.token_bytes()
    for text in [*ODD, *random_texts(1000)]:
        assert exported.encode(text) == tokenizer.encode(text)
        assert exported.decode(exported.encode(text)) == text
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("the x").input_ids == tokenizer.encode_prompt("the x")
    assert theirs("a<|end_of_text|>").input_ids[-1] == tokenizer.eos_id


def test_the_special_tokens_are_llamas() -> None:
    names = special_tokens()
    assert len(names) == len(set(names)) == N_SPECIAL
    assert names[:3] == ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>"]
    assert (names.index("<|eot_id|>"), names[-1]) == (9, "<|reserved_special_token_245|>")


def from_wheel(package: str, file: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), package]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("PyPI cannot be reached")
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(file, folder))


@pytest.mark.slow
def test_llama_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")  # TikTokenConverter would leave a copy in /tmp
    file = from_wheel("llama-models==0.3.0", "llama_models/llama3/tokenizer.model", tmp_path)
    tokenizer = load_tokenizer(file)
    assert isinstance(tokenizer, TiktokenTokenizer)
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id) == (128256, 128000, 128001)
    assert tokenizer.encode("Hello world") == [9906, 1917]
    write_tokenizer(file, tmp_path, 8192)
    exported = load_tokenizer(tmp_path / "tokenizer.json")
    theirs = TikTokenConverter(vocab_file=str(file)).converted()
    for text in [*ODD, *random_texts(3000)]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert theirs.encode(text, add_special_tokens=False).ids == ids
        assert exported.encode(text) == ids
    for text in LONG.values():
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.slow
def test_mistral(tmp_path: Path) -> None:
    """Its model has Llama 2's layout: it puts a space before the text."""
    file = from_wheel("mistral-common==1.13.1", "mistral_common/data/tokenizer.model.v1", tmp_path)
    tokenizer, plain = load_tokenizer(file), spm.SentencePieceProcessor(model_file=str(file))
    out = tmp_path / "export"
    out.mkdir()
    write_tokenizer(file, out, 8192)
    exported = load_tokenizer(out / "tokenizer.json")
    shutil.copy(file, out / "tokenizer.model")
    assert load_tokenizer(out).files == tokenizer.files
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id) == (32000, 1, 2)
    for text in [*ODD, *random_texts(3000)]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode(tokenizer.encode_document(text)) == text
        assert exported.encode(text) == ids
        assert exported.decode(ids) == text
        if "\u2581" not in text:
            assert ids == plain.EncodeAsIds(text)
