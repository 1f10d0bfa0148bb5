"""How fast tokens are made and read, beside bare `encode` calls and other loaders, in turns within one run."""

import json
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from data.batches.loader import Loader
from data.batches.mixture import Mixture
from data.batches.packing import ConcatRows
from data.batches.stream import Stream
from data.config import OnError, SourceConfig
from data.other_loaders import (
    datasets_text_batches,
    datasets_token_batches,
    torchtitan_batches,
    write_token_rows,
)
from data.prepared.parallel import n_processes
from data.prepared.preparation import prepare_shards
from data.prepared.progress import Settings
from data.prepared.shards import Tokens, open_part, read_manifest
from data.sources.split import TRAIN
from data.tokenizers.tokenizer import Tokenizer

N_FILES = 8

_texts: list[list[str]] = []
_tokenizer: Tokenizer | None = None


def _encode_bare(part: int) -> int:
    assert _tokenizer is not None
    return sum(len(_tokenizer.encode(text)) for text in _texts[part])


def bare_encode(texts: list[str], tokenizer: Tokenizer, workers: int) -> tuple[int, float]:
    """(tokens, seconds) of nothing but encode calls, in so many processes that have the texts already."""
    global _texts, _tokenizer
    n_parts = max(workers * 8, len(texts) // 256)
    _texts, _tokenizer = [texts[i::n_parts] for i in range(n_parts)], tokenizer
    begun = time.perf_counter()
    if workers == 1:
        return sum(map(_encode_bare, range(n_parts))), time.perf_counter() - begun
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        n_tokens = sum(pool.imap_unordered(_encode_bare, range(n_parts)))
        return n_tokens, time.perf_counter() - begun


def prepared(source: SourceConfig, tokenizer: Tokenizer, folder: Path, workers: int) -> tuple[int, float]:
    """(tokens, seconds) of data.prepare's work: read, tokenize, write shards and checksums."""
    shutil.rmtree(folder, ignore_errors=True)
    begun = time.perf_counter()
    prepare_shards(source, tokenizer, folder, Settings(0.0, workers=workers))
    seconds = time.perf_counter() - begun
    return int(read_manifest(folder)["facts"]["train_tokens"]), seconds


def reading_speed(batches: Iterator[torch.Tensor], seconds: float) -> float:
    """Tokens per second of a loader, once it has begun."""
    for _ in islice(batches, 2):
        pass
    n_tokens, begun = 0, time.perf_counter()
    while (passed := time.perf_counter() - begun) < seconds:
        n_tokens += next(batches).numel()
    return n_tokens / passed


def write_jsonl(texts: list[str], folder: Path) -> SourceConfig:
    """Texts as .jsonl files."""
    folder.mkdir()
    for i in range(N_FILES):
        lines = (json.dumps({"text": text}) for text in texts[i::N_FILES])
        (folder / f"{i}.jsonl").write_text("\n".join(lines))
    return SourceConfig(path=str(folder))


def _ours(
    content: Tokens | Stream, tokenizer: Tokenizer, seq_len: int, batch_size: int, num_workers: int
) -> Iterator[torch.Tensor]:
    """Our loader over one source, shuffled."""
    loader = Loader(
        [content if isinstance(content, Stream) else ConcatRows(content, seq_len)],
        Mixture([1.0], seed=0),
        seq_len=seq_len,
        fill_id=tokenizer.eos_id,
        batch_size=batch_size,
        num_workers=num_workers,
        stream_lanes=N_FILES,
    )
    return (inputs["input"] for inputs, _ in loader)


def measure_throughput(
    texts: list[str],
    tokenizer: Tokenizer,
    tmp: Path,
    *,
    seq_len: int,
    batch_size: int,
    seconds: float,
    workers: int | None,
) -> Iterator[dict[str, float]]:
    """Figures of one round after another, tokens per second by name; the order turns from round to round."""
    workers = n_processes(workers)
    source = write_jsonl(texts, tmp / "text")
    prepared(source, tokenizer, tmp / "shards", workers)
    tokens = open_part(tmp / "shards", read_manifest(tmp / "shards"), TRAIN)
    n_rows = len(tokens) // seq_len
    write_token_rows(tmp / "rows", tokens.read(0, n_rows * seq_len).reshape(n_rows, seq_len), N_FILES)
    hub = SourceConfig(path=f"hf://{tmp / 'text'}", streaming=True)
    stream = Stream(hub, tokenizer, frozenset(), OnError.stop, 0)
    sizes = {"seq_len": seq_len, "batch_size": batch_size}

    def speed(batches: Callable[[], Iterator[torch.Tensor]]) -> Callable[[], float]:
        return lambda: reading_speed(batches(), seconds)

    def rate(work: Callable[[], tuple[int, float]]) -> Callable[[], float]:
        def per_second() -> float:
            n_tokens, passed = work()
            return n_tokens / passed

        return per_second

    arms: dict[str, Callable[[], float]] = {
        "encode": rate(lambda: bare_encode(texts, tokenizer, workers)),
        "prepare": rate(lambda: prepared(source, tokenizer, tmp / "again", workers)),
        "shard": speed(lambda: _ours(tokens, tokenizer, seq_len, batch_size, 0)),
        "datasets_token": speed(lambda: datasets_token_batches(tmp / "rows", batch_size, 0)),
        "stream": speed(lambda: _ours(stream, tokenizer, seq_len, batch_size, 0)),
        "torchtitan": speed(lambda: torchtitan_batches(tmp / "text", tokenizer, **sizes, num_workers=0)),
        "datasets_text": speed(lambda: datasets_text_batches(tmp / "text", tokenizer, **sizes, num_workers=0)),
        "stream_2_workers": speed(lambda: _ours(stream, tokenizer, seq_len, batch_size, 2)),
        "torchtitan_2_workers": speed(lambda: torchtitan_batches(tmp / "text", tokenizer, **sizes, num_workers=2)),
        "datasets_text_2_workers": speed(
            lambda: datasets_text_batches(tmp / "text", tokenizer, **sizes, num_workers=2)
        ),
    }
    for turn in range(10**9):
        order = list(arms) if turn % 2 == 0 else list(reversed(arms))
        yield {name: arms[name]() for name in order}


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """`<name>_tokens_per_second` of each, and the ratios of ours to others within a round."""
    figures = {f"{name}_tokens_per_second": float(np.median([r[name] for r in rounds])) for name in rounds[0]}
    for ours, other in (
        ("prepare", "encode"),
        ("shard", "datasets_token"),
        ("shard", "torchtitan"),
        ("stream", "torchtitan"),
        ("stream", "datasets_text"),
        ("stream_2_workers", "torchtitan_2_workers"),
        ("stream_2_workers", "datasets_text_2_workers"),
    ):
        ratios = [r[ours] / r[other] for r in rounds]
        figures[f"{ours}_over_{other}"] = float(np.median(ratios))
        figures[f"{ours}_over_{other}_q25"], figures[f"{ours}_over_{other}_q75"] = (
            float(q) for q in np.quantile(ratios, [0.25, 0.75])
        )
    return figures
