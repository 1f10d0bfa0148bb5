"""The corpus of a run: split, tokenizer, cache, mixtures, prepared shards, streams, and mistakes told in one line."""

import argparse
import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest

from data.config import DataConfig, DataError, Packing, SourceConfig, TokenizerConfig
from data.corpus import Corpus, prepare
from data.prepared.preparation import prepare_shards
from data.prepared.progress import Settings
from data.prepared.shards import Tokens
from data.sources.documents import Document
from data.sources.reading import read_documents
from data.sources.split import Split, split_of
from data.training import check_epochs, training_loader

CODE = Path(argparse.__file__).read_text()


def config(cache: Path, *sources: SourceConfig, **options: object) -> DataConfig:
    options = {"tokenizer": TokenizerConfig(vocab_size=400), **options}
    named = {f"s{i}": s for i, s in enumerate(sources)}
    return DataConfig(name="t", source=None, sources=named, cache_dir=str(cache), **options)  # type: ignore[arg-type]


def files(folder: Path, *texts: str) -> SourceConfig:
    folder.mkdir(parents=True, exist_ok=True)
    for i, text in enumerate(texts):
        (folder / f"{i}.py").write_text(text)
    return SourceConfig(path=str(folder))


def records(path: Path, texts: list[str]) -> SourceConfig:
    path.write_text("\n".join(json.dumps({"text": t}) for t in texts))
    return SourceConfig(path=str(path))


def train_tokens(corpus: Corpus, source: int = 0) -> Tokens:
    content = corpus.sources[source].content
    assert isinstance(content, Tokens)
    return content


def texts_of(tokens: Tokens, corpus: Corpus) -> set[str]:
    ids = tokens.read(0, len(tokens))
    ends = np.flatnonzero(ids == corpus.tokenizer.eos_id)
    starts = np.flatnonzero(ids == corpus.tokenizer.bos_id)
    return {corpus.tokenizer.decode(ids[a : b + 1].tolist()) for a, b in zip(starts, ends, strict=True)}


def parts(split: Split, source: SourceConfig) -> dict[str, list[Document]]:
    found: dict[str, list[Document]] = {"train": [], "validation": []}
    for document in read_documents(source):
        for part, piece in split.parts(document):
            found[part].append(piece)
    return found


def test_files_are_split_by_a_hash_of_their_names_to_the_size_asked_for(tmp_path: Path) -> None:
    source = files(tmp_path, *("x" * (50 + i % 100) for i in range(500)))
    split = parts(split_of(source, 0.1), source)
    total = sum(len(d.text) for d in split["train"] + split["validation"])
    assert sum(len(d.text) for d in split["validation"]) / total == pytest.approx(0.1, abs=0.005)
    (tmp_path / "new.py").write_text("y" * 100)
    grown = {d.name for d in parts(split_of(source, 0.1), source)["validation"]}
    assert len(grown ^ {d.name for d in split["validation"]}) <= 4, "a new file moves few others"
    few = files(tmp_path / "two", "x\n" * 9, "y\n" * 9)
    assert [len(p) for p in parts(split_of(few, 0.9), few).values()] == [1, 1]


def test_records_are_split_by_a_hash_of_their_names(tmp_path: Path) -> None:
    source = records(tmp_path / "a.jsonl", [f"text {i}" for i in range(2000)])
    split = parts(split_of(source, 0.1), source)
    assert len(split["validation"]) / 2000 == pytest.approx(0.1, abs=0.02)
    assert len(split["train"]) + len(split["validation"]) == 2000


def test_a_lone_file_is_cut_at_a_line(tmp_path: Path) -> None:
    source = files(tmp_path, "line\n" * 100)
    split = parts(split_of(source, 0.2), source)
    [train], [held_out] = split["train"], split["validation"]
    assert train.text + held_out.text == "line\n" * 100
    assert len(held_out.text) == 100


def test_everything_is_tokenized_once(tmp_path: Path) -> None:
    source = files(tmp_path / "c", CODE, CODE[::-1], "x = 1\n", "")
    corpus = prepare(config(tmp_path / "cache", source))
    texts = texts_of(train_tokens(corpus), corpus) | texts_of(corpus.validation, corpus)
    assert texts == {CODE, CODE[::-1], "x = 1\n"}
    held_out = "".join(texts_of(corpus.validation, corpus)).encode()
    assert corpus.facts["gzip_bits_per_byte"] == 8 * len(gzip.compress(held_out, 9)) / len(held_out)
    assert corpus.facts["validation_bytes"] == len(held_out)


def test_cache_is_used_and_renewed(tmp_path: Path) -> None:
    source = files(tmp_path / "c", CODE, CODE + "#\n")
    cache = tmp_path / "cache"
    first = prepare(config(cache, source))
    manifests = set(cache.glob("*/manifest.json"))
    stamp = first.tokenizer_path.stat().st_mtime_ns
    assert prepare(config(cache, source)).tokenizer_path.stat().st_mtime_ns == stamp
    assert set(cache.glob("*/manifest.json")) == manifests
    files(tmp_path / "c", CODE, CODE + "changed = 1\n")
    assert prepare(config(cache, source)).tokenizer_path != first.tokenizer_path
    assert prepare(config(cache, source, validation_fraction=0.2)).tokenizer_path != first.tokenizer_path
    assert len(set(cache.glob("*/manifest.json"))) == 3


def test_damaged_cache_is_told(tmp_path: Path) -> None:
    source = files(tmp_path / "c", CODE, CODE + "#\n")
    prepare(config(tmp_path / "cache", source))
    [tokens] = (tmp_path / "cache").glob("*/train_00000.npy")
    tokens.write_bytes(tokens.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"train_00000\.npy: 1,000 bytes instead of .*prepare the shards again"):
        prepare(config(tmp_path / "cache", source))


def test_a_given_tokenizer_is_taken_and_must_fit(tmp_path: Path) -> None:
    source = files(tmp_path / "c", CODE, CODE + "#\n")
    first = prepare(config(tmp_path / "cache", source))
    options = {"tokenizer": TokenizerConfig(path=str(first.tokenizer_path), vocab_size=400)}
    second = prepare(config(tmp_path / "cache", source, **options), model_vocab_size=400)
    assert second.tokenizer.files == first.tokenizer.files
    with pytest.raises(DataError, match=r"model\.vocab_size=399: must be at least the tokenizer's 400"):
        prepare(config(tmp_path / "new", source, **options), model_vocab_size=399)
    assert not list((tmp_path / "new").glob("*/manifest.json")), "told before anything is tokenized"


def test_prepared_shards_bring_their_tokenizer(tmp_path: Path) -> None:
    source = files(tmp_path / "c", CODE, CODE + "#\n")
    corpus = prepare(config(tmp_path / "cache", source))
    prepare_shards(source, corpus.tokenizer, tmp_path / "shards", Settings(0.1))
    shards = SourceConfig(path=str(tmp_path / "shards"))
    again = prepare(config(tmp_path / "other", shards))
    assert again.tokenizer.files == corpus.tokenizer.files
    assert train_tokens(again).read(0, 9**9).tolist() == train_tokens(corpus).read(0, 9**9).tolist()
    other = prepare(config(tmp_path / "other", files(tmp_path / "d", CODE[:5000], CODE[5000:])))
    with pytest.raises(DataError, match=r"data\.sources\.s0: .*made with another tokenizer"):
        prepare(config(tmp_path / "other", shards, tokenizer=TokenizerConfig(path=str(other.tokenizer_path))))
    prepare_shards(source, corpus.tokenizer, tmp_path / "without", Settings(0.0))
    with pytest.raises(DataError, match="none has held-out text"):
        prepare(config(tmp_path / "other", SourceConfig(path=str(tmp_path / "without"))))


def test_held_out_text_of_its_own(tmp_path: Path) -> None:
    source = files(tmp_path / "c", CODE, "train = 1\n")
    source.validation = files(tmp_path / "v", "held = 2\n", "out = 3\n").path
    corpus = prepare(config(tmp_path / "cache", source))
    assert texts_of(train_tokens(corpus), corpus) == {CODE, "train = 1\n"}
    assert texts_of(corpus.validation, corpus) == {"held = 2\n", "out = 3\n"}


def labels(corpus: Corpus, options: DataConfig, n: int, seq_len: int = 32) -> np.ndarray:
    loader = iter(training_loader(corpus, options, seq_len=seq_len, batch_size=4, seed=1))
    return np.concatenate([next(loader)[1].numpy() for _ in range(n)])


def share_of_digits(corpus: Corpus, rows: np.ndarray) -> float:
    return sum(corpus.tokenizer.decode(row[row >= 0].tolist()).isdigit() for row in rows) / len(rows)


def test_mixtures_by_weight_and_by_epochs(tmp_path: Path) -> None:
    """Sources of digits and letters: whose token it is can be seen."""
    digits = records(tmp_path / "digits.jsonl", [str(i**7) * 3 for i in range(400)])
    letters = records(tmp_path / "letters.jsonl", [CODE[20 * i : 20 * i + 60] for i in range(800)])
    digits.weight, letters.weight = 3.0, 1.0
    options = config(tmp_path / "cache", digits, letters)
    corpus = prepare(options)
    rows = labels(corpus, options, 200)
    assert share_of_digits(corpus, rows) == pytest.approx(0.75, abs=0.01)
    assert len(texts_of(corpus.validation, corpus)) > 30
    digits.weight = letters.weight = None
    letters.epochs = 2.0
    sizes = [len(train_tokens(corpus, i)) for i in (0, 1)]
    rows = labels(corpus, options, 200)
    assert share_of_digits(corpus, rows) == pytest.approx(sizes[0] / (sizes[0] + 2 * sizes[1]), abs=0.02)
    n_rows = (sizes[0] + 2 * sizes[1]) // 32
    check_epochs(corpus, options, 32, n_rows)
    with pytest.raises(DataError, match=r"data\.sources\.s1\.epochs=2: the run would read it 4\.0\d times"):
        check_epochs(corpus, options, 32, 2 * n_rows)


def test_best_fit_keeps_documents_whole(tmp_path: Path) -> None:
    source = records(tmp_path / "a.jsonl", [CODE[30 * i : 30 * i + 40] for i in range(300)])
    options = config(tmp_path / "cache", source, packing=Packing.best_fit)
    corpus = prepare(options)
    tokenizer = corpus.tokenizer
    documents = {tuple(tokenizer.encode_document(d.text)) for d in read_documents(source)}
    assert max(map(len, documents)) <= 64
    loader = iter(training_loader(corpus, options, seq_len=64, batch_size=4, seed=1))
    for _ in range(10):
        inputs, targets = next(loader)
        for row, label in zip(inputs["input"].tolist(), targets.tolist(), strict=True):
            begins = [i for i, t in enumerate(row) if t == tokenizer.bos_id and label[i] != -100]
            for a, b in zip(begins, [*begins[1:], label.index(-100) if -100 in label else 64], strict=True):
                assert (row[a], *label[a:b]) in documents


def write_stream(folder: Path) -> SourceConfig:
    folder.mkdir()
    records(folder / "train.jsonl", [f"number {i} {CODE[i : i + 40]}" for i in range(300)])
    return SourceConfig(path=f"hf://{folder}", streaming=True)


def test_a_stream_holds_out_its_first_documents(tmp_path: Path) -> None:
    options = config(tmp_path / "cache", write_stream(tmp_path / "set"), validation_documents=20, stream_lanes=2)
    corpus = prepare(options)
    held_out = texts_of(corpus.validation, corpus)
    assert held_out == {f"number {i} {CODE[i : i + 40]}" for i in range(20)}
    assert prepare(options).facts == corpus.facts
    assert corpus.facts["validation_bytes"] == sum(len(t.encode()) for t in held_out)
    rows = labels(corpus, options, 100)
    lanes = [corpus.tokenizer.decode(rows[lane::2].flatten().tolist()) for lane in (0, 1)]
    numbers = {int(n) for text in lanes for n in re.findall(r"number (\d+) ", text)}
    assert numbers == set(range(20, 300))
    by_split = write_stream(tmp_path / "split")
    (tmp_path / "split" / "validation.jsonl").write_text(json.dumps({"text": "held out"}))
    by_split.validation = "validation"
    corpus = prepare(config(tmp_path / "cache", by_split))
    assert texts_of(corpus.validation, corpus) == {"held out"}


def test_a_hub_data_set_can_be_prepared_first(tmp_path: Path) -> None:
    source = write_stream(tmp_path / "set")
    source.streaming = False
    corpus = prepare(config(tmp_path / "cache", source, validation_fraction=0.1))
    texts = texts_of(train_tokens(corpus), corpus) | texts_of(corpus.validation, corpus)
    assert texts == {f"number {i} {CODE[i : i + 40]}" for i in range(300)}


MISTAKES = [
    ({"path": "a", "weight": 0.0}, r"weight=0\.0: a source's weight must be above 0"),
    ({"path": "a", "epochs": -1.0}, r"epochs=-1\.0: a source's epochs must be above 0"),
    ({"path": "a", "streaming": True}, "streaming=true: only of hf:// sources, not of a"),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES)
def test_mistakes_in_a_source(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SourceConfig(**options)  # type: ignore[arg-type]


def test_mistakes_in_a_mixture(tmp_path: Path) -> None:
    plain, weighted = SourceConfig(path="a"), SourceConfig(path="b", weight=1.0)
    with pytest.raises(ValueError, match=r"data\.sources: weight is missing for s0"):
        config(tmp_path, plain, weighted)
    with pytest.raises(ValueError, match="a stream has no known size"):
        config(tmp_path, plain, SourceConfig(path="hf://b", streaming=True))
    with pytest.raises(ValueError, match=r"data\.packing=best_fit: not for streams"):
        config(tmp_path, SourceConfig(path="hf://b", streaming=True), packing=Packing.best_fit)
    with pytest.raises(ValueError, match=r"data\.sources: empty"):
        config(tmp_path)
    with pytest.raises(DataError, match="no text is left to train a tokenizer on"):
        prepare(config(tmp_path / "cache", files(tmp_path / "c", "")))


def test_a_lone_text_of_one_line_is_cut_after_a_word(tmp_path: Path) -> None:
    text = CODE.replace("\n", " ").strip()
    corpus = prepare(config(tmp_path / "cache", files(tmp_path / "c", text)))
    decode, train = corpus.tokenizer.decode, corpus.sources[0].content
    assert isinstance(train, Tokens)
    both = [decode(part.read(0, len(part)).tolist()) for part in (train, corpus.validation)]
    assert "".join(both) == text
    assert both[0].endswith(" ")
    assert 0.02 < len(both[1]) / len(text) < 0.2
