"""Sources, split and cache: any folder or glob, deterministic, and bad input told by file and line."""

import argparse
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from data.config import DataConfig, DataError, TokenizerConfig
from data.corpus import check_vocabulary, prepare
from data.sources import Document, find_files, read_documents
from data.split import split

CODE = Path(argparse.__file__).read_text()


def config(source: object, cache: Path, **options: object) -> DataConfig:
    tokenizer = TokenizerConfig(vocab_size=400)
    return DataConfig(name="t", source=str(source), cache_dir=str(cache), tokenizer=tokenizer, **options)  # type: ignore[arg-type]


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_dot_", ".")).write_text(text)
    return folder


def test_the_standard_library_without_tests_and_tables() -> None:
    root, files = find_files("stdlib")
    names = {f.relative_to(root).as_posix() for f in files}
    assert {"argparse.py", "json/decoder.py"} <= names
    left_out = {"site-packages", "test", "tests", "encodings", "idlelib", "pydoc_data"}
    assert not [n for n in names if left_out & set(n.split("/"))]
    assert 5e6 < sum(f.stat().st_size for f in files) < 15e6


def test_folder_glob_and_file(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", b_dot_txt="B", a_dot_md="A", skip_dot_bin="no", empty_dot_py="")
    write(folder / "sub", c_dot_py="C")
    assert [d.name for d in read_documents(str(folder))] == ["a.md", "b.txt", "sub/c.py"]
    assert [d.text for d in read_documents(f"{folder}/**/*.py")] == ["C"]
    assert [d.text for d in read_documents(f"{folder}/b.txt")] == ["B"]


def test_jsonl(tmp_path: Path) -> None:
    rows = [{"text": "one\u2028still one"}, {"text": ""}, {"text": "two"}]
    write(tmp_path, a_dot_jsonl="\n".join(json.dumps(r, ensure_ascii=False) for r in rows) + "\n\n")
    assert list(read_documents(str(tmp_path))) == [
        Document("a.jsonl:1", "one\u2028still one"),
        Document("a.jsonl:3", "two"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": ', r"a\.jsonl:2: broken JSON"),
        ("a.jsonl", b'{"body": "x"}\n', r"a\.jsonl:1: no text in field 'text' \(data\.text_field\); fields: body"),
        ("a.jsonl", b"[1]\n", r"a\.jsonl:1: no text in field"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', r"a\.jsonl:2: not UTF-8"),
        ("a.txt", b"fine\nfine\nb\xe4d\n", r"a\.txt:3: not UTF-8 \(byte 0xe4\)"),
    ],
)
def test_bad_input_is_told_by_file_and_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        list(read_documents(str(tmp_path)))
    assert "\n" not in str(error.value)


def test_nothing_there(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "none", f"{tmp_path}/*.py"):
        with pytest.raises(DataError, match=r"data\.source=.*no \.txt"):
            find_files(str(source))
    write(tmp_path, a_dot_bin="x")
    with pytest.raises(DataError, match="not one of"):
        find_files(f"{tmp_path}/a.bin")


def test_split_is_by_document_deterministic_and_of_the_size_asked_for() -> None:
    documents = [Document(f"d{i}", "x" * (50 + i % 100)) for i in range(1000)]
    train, validation = split(documents, 0.1)
    assert sorted(d.name for d in train + validation) == sorted(d.name for d in documents)
    share = sum(len(d.text) for d in validation) / sum(len(d.text) for d in documents)
    assert share == pytest.approx(0.1, abs=0.002)
    assert split(list(reversed(documents)), 0.1)[1] == list(reversed(validation)), "names decide, not the order"
    grown = split([*documents, Document("new", "y" * 100)], 0.1)[1]
    assert len({d.name for d in grown} ^ {d.name for d in validation}) <= 4, "a new file moves few others"


def test_few_documents() -> None:
    two = [Document("a", "x\n" * 9), Document("b", "y\n" * 9)]
    assert [len(part) for part in split(two, 0.9)] == [1, 1]
    [train], [held_out] = split([Document("a", "line\n" * 100)], 0.2)
    assert train.text + held_out.text == "line\n" * 100
    assert len(held_out.text) == 100
    with pytest.raises(DataError, match="cannot be split"):
        split([Document("a", "one line")], 0.1)


def test_prepare_tokenizes_everything_once(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", a_dot_py=CODE, b_dot_py=CODE[::-1], c_dot_py="x = 1\n")
    corpus = prepare(config(folder, tmp_path / "cache"))
    tokenizer = corpus.tokenizer
    texts = set()
    for tokens in (corpus.train, corpus.validation):
        ends = np.flatnonzero(tokens == tokenizer.eos_id)
        starts = np.flatnonzero(tokens == tokenizer.bos_id)
        assert len(starts) == len(ends)
        texts |= {tokenizer.decode(tokens[a : b + 1].tolist()) for a, b in zip(starts, ends, strict=True)}
    assert texts == {CODE, CODE[::-1], "x = 1\n"}
    held_out = "".join(d.text for d in split(list(read_documents(str(folder))), 0.05)[1]).encode()
    assert corpus.facts["gzip_bits_per_byte"] == 8 * len(gzip.compress(held_out, 9)) / len(held_out)
    assert corpus.facts["validation_bytes"] == len(held_out)


def test_cache_is_used_and_renewed(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", a_dot_py=CODE, b_dot_py=CODE + "#\n")
    cache = tmp_path / "cache"
    first = prepare(config(folder, cache))
    stamp = first.tokenizer_path.stat().st_mtime_ns
    assert prepare(config(folder, cache)).tokenizer_path.stat().st_mtime_ns == stamp
    write(folder, b_dot_py=CODE + "changed = 1\n")
    assert prepare(config(folder, cache)).tokenizer_path != first.tokenizer_path
    assert prepare(config(folder, cache, validation_fraction=0.2)).tokenizer_path != first.tokenizer_path
    # A kill in the middle leaves no facts.json: the work is done again.
    (first.tokenizer_path.parent / "facts.json").unlink()
    write(folder, b_dot_py=CODE + "#\n")
    assert len(prepare(config(folder, cache)).train)


def test_a_damaged_cache_is_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", a_dot_py=CODE, b_dot_py=CODE + "#\n")
    tokens = prepare(config(folder, tmp_path / "cache")).tokenizer_path.with_name("train.npy")
    tokens.write_bytes(tokens.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"cache is damaged .* delete that folder"):
        prepare(config(folder, tmp_path / "cache"))


def test_a_given_tokenizer_is_taken_and_must_fit(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", a_dot_py=CODE, b_dot_py=CODE + "#\n")
    first = prepare(config(folder, tmp_path / "cache"))
    options = config(folder, tmp_path / "cache")
    options.tokenizer = TokenizerConfig(path=str(first.tokenizer_path), vocab_size=400)
    second = prepare(options)
    assert second.tokenizer.files == first.tokenizer.files
    check_vocabulary(second, 400)
    with pytest.raises(DataError, match=r"model\.vocab_size=399: must be at least the tokenizer's 400"):
        check_vocabulary(second, 399)
