"""Sources: any file, folder or glob, plain or compressed, in a fixed order; bad input is told by file and line."""

import argparse
import gzip
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from conftest import compose_config

import data.sources.chunks
from conf.strict import ConfigError
from data.config import DataError, Format, SourceConfig
from data.corpus import prepare
from data.sources.documents import Bad, Document
from data.sources.reading import read_documents, source_chunks
from data.sources.source_files import find_files

CODE = Path(argparse.__file__).read_text()


def source(path: object, **options: object) -> SourceConfig:
    return SourceConfig(path=str(path), **options)  # type: ignore[arg-type]


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_dot_", ".")).write_text(text)
    return folder


def everything(of: SourceConfig) -> list[Document | Bad]:
    return [d for chunk in source_chunks(of) for d in chunk.documents(of)]


def test_the_standard_library_without_tests_and_tables() -> None:
    root, files = find_files("stdlib")
    names = {f.relative_to(root).as_posix() for f in files}
    assert {"argparse.py", "json/decoder.py"} <= names
    left_out = {"site-packages", "test", "tests", "encodings", "idlelib", "pydoc_data"}
    assert not [n for n in names if left_out & set(n.split("/"))]
    assert 5e6 < sum(f.stat().st_size for f in files) < 15e6


def test_an_installed_package_without_its_tests() -> None:
    root, files = find_files("site-packages:torchtitan")
    names = {f.relative_to(root).as_posix() for f in files}
    assert "train.py" in names
    assert not [n for n in names if "tests" in n.split("/")]
    assert all(f.suffix == ".py" for f in files)


@pytest.mark.parametrize("name", ["", "no_such_package", "torch.nn", "six", "../torch"])
def test_what_is_no_installed_package(name: str) -> None:
    with pytest.raises(DataError, match=f"site-packages:{re.escape(name)}: no package of that name is installed"):
        find_files(f"site-packages:{name}")


def test_folder_glob_and_file(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", b_dot_txt="B", a_dot_md="A", skip_dot_bin="no", empty_dot_py="")
    write(folder / "sub", c_dot_py="C")
    assert [d.name for d in read_documents(source(folder))] == ["a.md", "b.txt", "sub/c.py"]
    assert [d.text for d in read_documents(source(f"{folder}/**/*.py"))] == ["C"]
    assert [d.text for d in read_documents(source(f"{folder}/b.txt"))] == ["B"]


ROWS = [{"text": "one\u2028still one"}, {"text": ""}, {"text": "two\r\n\ttabs"}, {"text": "drei ü"}]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("chunk_bytes", [1, 20, 1 << 20])
def test_jsonl_in_chunks_of_any_size(
    tmp_path: Path, suffix: str, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data.sources.chunks, "CHUNK_BYTES", chunk_bytes)
    raw = ("\n".join(json.dumps(r, ensure_ascii=False) for r in ROWS[:2]) + "\n\n").encode()
    raw += "\n".join(json.dumps(r) for r in ROWS[2:]).encode()  # no line end at the end
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix]
    (tmp_path / f"a.jsonl{suffix}").write_bytes(pack(raw[:30]) + pack(raw[30:]))  # two members
    documents = everything(source(tmp_path))
    assert documents == [Document(f"a.jsonl{suffix}:{n}", r["text"]) for n, r in zip((1, 2, 4, 5), ROWS, strict=True)]
    size = (tmp_path / f"a.jsonl{suffix}").stat().st_size
    assert sum(c.n_source_bytes for c in source_chunks(source(tmp_path))) == size, "for the progress bar"


def test_compressed_text_and_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"A\r\n"))
    (tmp_path / "b.py.zst").write_bytes(zstandard.ZstdCompressor().compress(b"B"))
    table = pa.table({"content": [f"row {i}" for i in range(5)], "other": range(5)})
    pq.write_table(table, tmp_path / "c.parquet", row_group_size=2)
    documents = list(read_documents(source(tmp_path, text_field="content")))
    rows = [Document(f"c.parquet:{i + 1}", f"row {i}") for i in range(5)]
    assert documents == [Document("a.txt.gz", "A\r\n"), Document("b.py.zst", "B"), *rows]


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_field_of_another_name_is_told_first_with_the_key_that_names_it(tmp_path: Path, on_error: str) -> None:
    records = [{"content": f"line {i} of a text, {i * i:x} {i**3}", "id": i} for i in range(99)]
    folder = write(tmp_path / "texts", a_dot_jsonl="\n".join(map(json.dumps, records)))
    options = ["data=text", f"data.source={folder}", f"data.cache_dir={tmp_path}/cache", f"data.on_error={on_error}"]
    message = r"a\.jsonl:1: no field 'text' .*fields: content, id; choose one with data\.text_field"
    with pytest.raises(DataError, match=message):
        prepare(compose_config(*options).data, 300)
    named = compose_config(*options, "data.text_field=content", "data.tokenizer.vocab_size=300")
    assert prepare(named.data, 300).facts["train_documents"] > 80
    with pytest.raises(ConfigError, match=r"data\.text_field=content: belongs to data=text"):
        compose_config("data=stdlib", "data.text_field=content")


def test_a_source_that_the_chosen_data_would_not_read_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.source=a\.txt: data=stdlib does not read it; take data=text"):
        compose_config("data.source=a.txt")


def test_prompts_and_completions(tmp_path: Path) -> None:
    write(tmp_path, a_dot_jsonl=json.dumps({"prompt": "2+2=", "completion": "4"}))
    of = source(tmp_path, format=Format.prompt_completion)
    assert list(read_documents(of)) == [Document("a.jsonl:1", "4", "2+2=")]


@pytest.mark.parametrize("header", ["semantic_parse", "seqlogical"])
def test_topv2_as_published(tmp_path: Path, header: str) -> None:
    parse = '[IN:GET_WEATHER [SL:LOCATION Rio "x" ] ]'
    (tmp_path / "weather_train.tsv").write_text(f'domain\tutterance\t{header}\nweather\tRio "x"\t{parse}\n')
    [document] = read_documents(source(tmp_path, format=Format.topv2))
    assert document == Document("weather_train.tsv:2", parse, 'Utterance: Rio "x"\nParse:\n')
    [as_json] = read_documents(source(tmp_path, format=Format.topv2_json))
    assert json.loads(as_json.text) == {"IN:GET_WEATHER": [{"SL:LOCATION": 'Rio "x"'}]}


BAD = [
    ("a.jsonl", b'{"text": "x"}\n{"text": ', r"a\.jsonl:2: broken JSON"),
    ("a.jsonl", b'{"body": "x"}\n', r"a\.jsonl:1: no field 'text' \(text_field\); fields: body"),
    ("a.jsonl", b'{"text": 3}\n', r"a\.jsonl:1: no text in field 'text'"),
    ("a.jsonl", b"[1]\n", r"a\.jsonl:1: not an object with the fields text"),
    ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', r"a\.jsonl:2: not UTF-8"),
    ("a.jsonl", b'\n{"text": "\\ud800"}\n', r"a\.jsonl:2: field 'text' holds half a surrogate pair"),
    ("a.jsonl", b"[" * 100_000, r"a\.jsonl:1: broken JSON"),
    ("a.jsonl", b"", r"a\.jsonl:1: the file is empty"),
    ("a.txt", b"fine\nfine\nb\xe4d\n", r"a\.txt:3: not UTF-8 \(byte 0xe4\)"),
    ("a.tsv", b"", r"a\.tsv:1: the file is empty \(for TOPv2: domain utterance semantic_parse"),
    ("a.tsv", b"one\n", r"a\.tsv:1: the first line must name the columns"),
    ("a.tsv", b"text\tb\nx\ty\tz\n", r"a\.tsv:2: 3 columns, but the first line names 2"),
    ("a.parquet", b"PAR1 no", r"a\.parquet: not a Parquet file, or cut off"),
    ("a.jsonl.gz", b"no gzip", r"a\.jsonl\.gz:1: cannot be read from here on"),
    ("a.jsonl.zst", b"no zstd", r"a\.jsonl\.zst:1: cannot be read from here on"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_bad_input_is_told_by_file_and_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        list(read_documents(source(tmp_path)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_file_that_is_cut_off(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.sources.chunks, "CHUNK_BYTES", 1000)
    lines = "".join(json.dumps({"text": f"{i} {CODE[i : i + 50]}"}) + "\n" for i in range(2000)).encode()
    packed = gzip.compress(lines) if suffix == ".gz" else zstandard.ZstdCompressor().compress(lines)
    for keep in (len(packed) - 1, len(packed) // 2):
        (tmp_path / f"a.jsonl{suffix}").write_bytes(packed[:keep])
        *before, last = everything(source(tmp_path))
        assert all(isinstance(d, Document) for d in before), "what comes before the damage is there"
        assert isinstance(last, Bad)
        line = int(last.message.split(":")[1])
        assert f"a.jsonl{suffix}:{line}: cannot be read from here on" in last.message
        assert len(before) == line - 1


def test_a_parquet_file_without_the_column_or_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: no column text; columns: body"):
        list(read_documents(source(tmp_path)))
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: the file is empty"):
        list(read_documents(source(tmp_path)))
    pq.write_table(pa.table({"text": ["x", None]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet:2: no text in field 'text'"):
        list(read_documents(source(tmp_path)))


def test_nothing_there(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", f"{tmp_path}/*.py"):
        with pytest.raises(DataError, match=r"no \.txt"):
            find_files(str(path))
    write(tmp_path, a_dot_bin="x")
    with pytest.raises(DataError, match="not one of"):
        find_files(f"{tmp_path}/a.bin")
