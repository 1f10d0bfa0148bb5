"""data.benchmark: what it writes, and that all of its arms read the same text."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from conftest import TINY_TEXT

from data.batches.stream import Stream
from data.config import OnError, SourceConfig
from data.other_loaders import datasets_text_batches, datasets_token_batches, torchtitan_batches, write_token_rows
from data.prepared.preparation import prepare_shards
from data.prepared.progress import Settings
from data.prepared.shards import open_part, read_manifest
from data.sources.documents import Document
from data.throughput import _ours, write_jsonl
from data.tokenizers.sentencepiece_tokenizer import train_tokenizer

ROOT = Path(__file__).parent.parent
KEYS = ["shard_tokens_per_second", "prepare_tokens_per_second", "encode_tokens_per_second"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "data.benchmark", *words], cwd=ROOT, capture_output=True, text=True)


def test_figures(tmp_path: Path) -> None:
    words = ["rounds=1", "seconds=0.2", "demo_steps=0", "max_megabytes=1", "tokenizer.vocab_size=400", "seq_len=256"]
    done = run(f"output={tmp_path}/figures.json", *words)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert all(figures[key] > 0 for key in KEYS)
    assert figures["prepare_over_encode"] == figures["prepare_tokens_per_second"] / figures["encode_tokens_per_second"]
    assert {"hardware", "threads", "commit", "rounds", "workers", "vocab_size"} <= figures.keys()
    assert "data_wait_fraction" not in figures
    wrong = run(f"output={tmp_path}/figures.json/x", *words)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith(f"error: output={tmp_path}/figures.json/x: ")


@pytest.mark.slow
def test_the_demo_hardly_waits(tmp_path: Path) -> None:
    done = run(f"output={tmp_path}/f.json", "rounds=1", "seconds=0.2", "max_megabytes=1", "demo_steps=20")
    assert done.returncode == 0, done.stderr
    assert 0.0 <= json.loads((tmp_path / "f.json").read_text())["data_wait_fraction"] < 0.5


def test_every_loader_reads_the_same_text(tmp_path: Path) -> None:
    texts = [TINY_TEXT[i : i + 700] for i in range(0, 40_000, 700)]
    tokenizer = train_tokenizer([Document("a", TINY_TEXT)], 400, 1, "test")
    source = write_jsonl(texts, tmp_path / "text")
    prepare_shards(source, tokenizer, tmp_path / "shards", Settings(0.0, workers=1))
    tokens = open_part(tmp_path / "shards", read_manifest(tmp_path / "shards"), "train")
    n_rows = len(tokens) // 64
    write_token_rows(tmp_path / "rows", tokens.read(0, n_rows * 64).reshape(n_rows, 64), 2)
    stream = Stream(SourceConfig(path=f"hf://{tmp_path / 'text'}"), tokenizer, frozenset(), OnError.stop, 0)
    of_all = torch.bincount(torch.from_numpy(tokens.read(0, len(tokens)))).float()
    for batches in (
        _ours(tokens, tokenizer, 64, 4, 0),
        _ours(stream, tokenizer, 64, 4, 0),
        datasets_token_batches(tmp_path / "rows", 4, 0),
        datasets_text_batches(tmp_path / "text", tokenizer, 64, 4, 0),
        torchtitan_batches(tmp_path / "text", tokenizer, 64, 4, 0),
    ):
        some = torch.bincount(torch.cat([b.flatten() for b in islice(batches, n_rows // 4)]), minlength=len(of_all))
        assert some.sum() == n_rows // 4 * 4 * 64
        assert torch.corrcoef(torch.stack([some.float(), of_all]))[0, 1] > 0.98
