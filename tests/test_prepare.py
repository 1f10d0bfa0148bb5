"""data.prepare: the same shards on any number of processes and after any kill; damage and mistakes are told."""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import data.prepared.preparation
import data.sources.chunks
from data.config import DataError, Format, OnError, SourceConfig
from data.prepared.parallel import encoded_chunks
from data.prepared.preparation import prepare_shards
from data.prepared.progress import PROGRESS, Settings
from data.prepared.shards import MANIFEST, discard, open_part, read_manifest, verify
from data.sources.documents import Document
from data.tokenizers.sentencepiece_tokenizer import train_tokenizer
from data.tokenizers.tokenizer import Tokenizer

CODE = Path(argparse.__file__).read_text()
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([Document("a", CODE)], 400, 1, "test")


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SourceConfig:
    """200 records and 40 files in about 100 chunks."""
    monkeypatch.setattr(data.sources.chunks, "CHUNK_BYTES", 1000)
    folder = tmp_path / "corpus"
    folder.mkdir()
    lines = [json.dumps({"text": f"# record {i}\n{CODE[100 * i : 100 * i + 80 + i]}"}) for i in range(200)]
    (folder / "a.jsonl").write_text("\n".join(lines))
    for i in range(40):
        (folder / f"f{i:02}.py").write_text(f"# file {i}\n{CODE[500 * i : 500 * i + 700]}")
    return SourceConfig(path=str(folder))


SETTINGS = Settings(0.1, workers=1, shard_tokens=4000)


def hashes(folder: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.iterdir())}


def texts(folder: Path, tokenizer: Tokenizer, part: str) -> list[str]:
    tokens = open_part(folder, read_manifest(folder), part)
    found = []
    for shard in tokens.shards:
        begins = [0, *shard.documents[:-1, 0]]
        found += [
            tokenizer.decode(shard.tokens[a:b].tolist()) for a, b in zip(begins, shard.documents[:, 0], strict=True)
        ]
    return found


def test_every_document_once_in_order(tmp_path: Path, corpus: SourceConfig, tokenizer: Tokenizer) -> None:
    prepare_shards(corpus, tokenizer, tmp_path / "s", SETTINGS)
    manifest = read_manifest(tmp_path / "s")
    assert len(manifest["parts"]["train"]) > 4
    train, validation = (texts(tmp_path / "s", tokenizer, part) for part in ("train", "validation"))
    records = [json.loads(line)["text"] for line in (Path(corpus.path) / "a.jsonl").read_text().split("\n")]
    files = [f.read_text() for f in sorted(Path(corpus.path).glob("*.py"))]
    held_out = set(validation)
    assert train == [t for t in records + files if t not in held_out]
    assert validation == [t for t in records + files if t in held_out]
    assert 0.03 < len(validation) / 240 < 0.2
    facts = manifest["facts"]
    assert facts["train_bytes"] == sum(len(t.encode()) for t in train)
    assert facts["train_documents"] + facts["validation_documents"] == 240
    # Documents are framed as the tokenizer frames them, in the smallest dtype.
    tokens = open_part(tmp_path / "s", manifest, "train")
    first = tokenizer.encode_document(train[0])
    assert tokens.read(0, len(first)).tolist() == first
    assert tokens.shards[0].tokens.dtype == np.uint16
    verify(tmp_path / "s", manifest, tmp_path / "memory.json")


def test_the_same_shards_on_several_processes(tmp_path: Path, corpus: SourceConfig, tokenizer: Tokenizer) -> None:
    prepare_shards(corpus, tokenizer, tmp_path / "one", SETTINGS)
    prepare_shards(corpus, tokenizer, tmp_path / "three", Settings(0.1, workers=3, shard_tokens=4000))
    assert hashes(tmp_path / "one") == hashes(tmp_path / "three")


@pytest.mark.parametrize("chunks", [0, 1, 30, 45])
def test_goes_on_after_a_stop_at_any_chunk(
    tmp_path: Path, corpus: SourceConfig, tokenizer: Tokenizer, chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_shards(corpus, tokenizer, tmp_path / "whole", SETTINGS)

    def stops(*args: object) -> Iterator[object]:
        for i, chunk in enumerate(encoded_chunks(*args)):  # type: ignore[arg-type]
            if i == chunks:
                raise KeyboardInterrupt
            yield chunk

    with monkeypatch.context() as patch:
        patch.setattr(data.prepared.preparation, "encoded_chunks", stops)
        with pytest.raises(KeyboardInterrupt):
            prepare_shards(corpus, tokenizer, tmp_path / "again", SETTINGS)
    assert not (tmp_path / "again" / MANIFEST).exists()
    with (tmp_path / "again" / PROGRESS).open("a") as stream:
        stream.write('{"end_ch')  # a kill in the middle of a line
    prepare_shards(corpus, tokenizer, tmp_path / "again", SETTINGS)
    assert hashes(tmp_path / "again") == hashes(tmp_path / "whole")


def test_a_folder_of_something_else_is_refused(tmp_path: Path, corpus: SourceConfig, tokenizer: Tokenizer) -> None:
    prepare_shards(corpus, tokenizer, tmp_path / "s", SETTINGS)
    before = hashes(tmp_path / "s")
    with pytest.raises(DataError, match="holds shards of another source, tokenizer or setting"):
        prepare_shards(corpus, tokenizer, tmp_path / "s", Settings(0.2, shard_tokens=4000))
    prepare_shards(corpus, tokenizer, tmp_path / "s", SETTINGS)
    assert hashes(tmp_path / "s") == before


def test_fresh_deletes_what_was_prepared_and_nothing_else(
    tmp_path: Path, corpus: SourceConfig, tokenizer: Tokenizer
) -> None:
    folder = tmp_path / "s"
    prepare_shards(corpus, tokenizer, folder, SETTINGS)
    before = hashes(folder)
    (folder / "train_00000.notes.npy").write_text("a user's")
    prepared = {f.name for f in folder.iterdir() if f.name.startswith(("train_0", "validation_0", "manifest"))}
    discard(folder)
    assert {f.name for f in folder.iterdir()}.isdisjoint(prepared - {"train_00000.notes.npy"})
    assert (folder / "train_00000.notes.npy").read_text() == "a user's"
    prepare_shards(corpus, tokenizer, folder, Settings(0.2, shard_tokens=4000))
    assert hashes(folder)[MANIFEST] != before[MANIFEST]


def test_unreadable_records_stop_or_are_counted(tmp_path: Path, corpus: SourceConfig, tokenizer: Tokenizer) -> None:
    path = Path(corpus.path) / "a.jsonl"
    lines = path.read_text().split("\n")
    for i in (3, 50, 120):
        lines[i] = lines[i][:-3]
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"a\.jsonl:4: broken JSON .*on_error=skip"):
        prepare_shards(corpus, tokenizer, tmp_path / "stop", SETTINGS)
    skip = Settings(0.1, OnError.skip, max_errors=3, workers=1, shard_tokens=4000)
    prepare_shards(corpus, tokenizer, tmp_path / "skip", skip)
    manifest = read_manifest(tmp_path / "skip")
    assert [m.split(": ")[0].rpartition(":")[2] for m in manifest["bad"]] == ["4", "51", "121"]
    assert manifest["facts"]["train_documents"] + manifest["facts"]["validation_documents"] == 237
    few = Settings(0.1, OnError.skip, max_errors=2, workers=1, shard_tokens=4000)
    with pytest.raises(DataError, match=r"a\.jsonl:121: .*more than max_errors=2"):
        prepare_shards(corpus, tokenizer, tmp_path / "few", few)


def test_prompts_are_marked(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = [{"prompt": f"add {i}\n", "completion": f"sum {i}"} for i in range(30)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = SourceConfig(path=str(tmp_path / "a.jsonl"), format=Format.prompt_completion)
    prepare_shards(source, tokenizer, tmp_path / "s", Settings(0.0, workers=1))
    tokens = open_part(tmp_path / "s", read_manifest(tmp_path / "s"), "train")
    assert tokens.has_prompts
    ids, inside = tokens.read(0, len(tokens)), tokens.in_prompt(0, len(tokens))
    begin = 0
    for row, (end, n_prompt) in zip(rows, tokens.shards[0].documents.tolist(), strict=True):
        prompt = tokenizer.encode_prompt(row["prompt"])
        assert ids[begin : begin + n_prompt].tolist() == prompt
        assert ids[begin:end].tolist() == [*prompt, *tokenizer.encode(row["completion"]), tokenizer.eos_id]
        assert inside[begin:end].tolist() == [True] * n_prompt + [False] * (end - begin - n_prompt)
        assert tokens.in_prompt(begin + 2, end).tolist() == inside[begin + 2 : end].tolist()
        begin = end


DAMAGE = [
    (lambda f: f.unlink(), "missing"),
    (lambda f: f.write_bytes(f.read_bytes()[:-2]), "bytes instead of"),
    (lambda f: f.write_bytes(f.read_bytes()[:-2] + b"\x00\x01"), "corrupted"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
@pytest.mark.parametrize("name", ["train_00001.npy", "train_00000.docs.npy", "validation_00000.npy"])
def test_damaged_shards_are_told(
    tmp_path: Path, corpus: SourceConfig, tokenizer: Tokenizer, damage: object, message: str, name: str
) -> None:
    folder, memory = tmp_path / "s", tmp_path / "memory.json"
    prepare_shards(corpus, tokenizer, folder, SETTINGS)
    verify(folder, read_manifest(folder), memory)
    time.sleep(0.01)  # the clock of file times is coarse
    damage(folder / name)  # type: ignore[operator]
    with pytest.raises(DataError, match=rf"{name}: .*{message}.*; prepare the shards again"):
        verify(folder, read_manifest(folder), memory)


def test_a_damaged_manifest_is_told(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text('{"format": 1, "par')
    with pytest.raises(DataError, match=r"manifest\.json: damaged"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text('{"format": 0}')
    with pytest.raises(DataError, match=r"manifest\.json: format 0, but this version reads 1"):
        read_manifest(tmp_path)


def command(*words: str, **options: object) -> list[str]:
    return [sys.executable, "-m", "data.prepare", *words]


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    for i in range(3):
        (tmp_path / "t" / f"{i}.py").write_text(CODE[10_000 * i :][:10_000])
    words = command(f"dataset.path={tmp_path}/t", f"output={tmp_path}/s", "tokenizer.vocab_size=400")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 documents" in done.stdout
    assert not list((tmp_path / "s").glob("tokenizer-*"))
    again = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert "was finished before" in again.stdout
    for change, line in {
        "dataset.path=nowhere": "error: nowhere: no .txt",
        "dataset.txet_field=a": "error: dataset.txet_field: unknown key (did you mean text_field?)",
        "workers=0": "error: workers=0: must be at least 1",
        "tokenizer.path=nowhere": "error: data.tokenizer.path=nowhere",
    }.items():
        wrong = subprocess.run([*words, change], cwd=ROOT, capture_output=True, text=True)
        assert wrong.returncode in (1, 2)
        assert wrong.stderr.startswith(line), wrong.stderr
        assert wrong.stderr.count("\n") == 1


@pytest.mark.slow
def test_killed_and_started_again(tmp_path: Path) -> None:
    """Kill -9 of the whole process group, twice, against a run that nobody killed."""
    (tmp_path / "t").mkdir()
    for i in range(30):
        lines = (json.dumps({"text": f"{i} {j} {CODE[(i * j) % 50_000 :][:2000]}"}) for j in range(300))
        (tmp_path / "t" / f"{i:02}.jsonl").write_text("\n".join(lines))
    words = [f"dataset.path={tmp_path}/t", "tokenizer.vocab_size=400", "shard_tokens=300000"]
    subprocess.run(command(*words, f"output={tmp_path}/whole", "workers=1"), cwd=ROOT, check=True)
    progress = tmp_path / "killed" / PROGRESS
    for n_shards in (2, 5):
        process = subprocess.Popen(command(*words, f"output={tmp_path}/killed"), cwd=ROOT, start_new_session=True)
        while not progress.exists() or len(progress.read_text().split("\n")) < n_shards + 2:
            assert process.poll() is None, "finished before it could be killed"
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command(*words, f"output={tmp_path}/killed"), cwd=ROOT, check=True)
    kept = {name: h for name, h in hashes(tmp_path / "whole").items() if not name.startswith(".")}
    assert {name: h for name, h in hashes(tmp_path / "killed").items() if not name.startswith(".")} == kept
    assert len(kept) > 10
