"""The loader's position is exact over ranks, processes, kills and changes of the number of ranks, streams included."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import pytest
import torch

import data.batches.stream
from data.batches.loader import Loader, validation_batches
from data.batches.mixture import Mixture
from data.batches.packing import IGNORE_INDEX, ConcatRows, Rows
from data.batches.stream import Stream
from data.config import DataError, OnError, SourceConfig
from data.prepared.shards import Shard, Tokens

T = 16


@pytest.fixture(scope="module", autouse=True)
def _small_blocks() -> Iterator[None]:
    """Blocks of 16 documents, so that stops fall into the middle of a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data.batches.stream, "BLOCK_DOCUMENTS", 16)
        yield


def rows(n: int = 999, first: int = 1, seq_len: int = T) -> ConcatRows:
    return ConcatRows(Tokens([Shard(np.arange(first, first + n, dtype=np.uint16), np.array([[n, 0]]))]), seq_len)


class Letters:
    """A tokenizer: code points, between 1 and 2."""

    files: ClassVar = {"tokenizer.model": b""}
    vocab_size, bos_id, eos_id = 2**16, 1, 2

    def encode(self, text: str) -> list[int]:
        return [ord(c) for c in text]

    def encode_document(self, text: str) -> list[int]:
        return [1, *self.encode(text), 2]


def text(i: int) -> str:
    return f"<{i}:" + "x" * (7 * i % 50) + ">"


KINDS = ["jsonl", "parquet", "arrow"]


def write_data_set(folder: Path, kind: str, n_files: int, n_records: int = 200) -> str:
    folder.mkdir()
    for f in range(n_files):
        records = datasets.Dataset.from_dict({"text": [text(i) for i in range(f, n_records, n_files)]})
        path = folder / f"train-{f}.{kind}"
        if kind == "jsonl":
            records.to_json(path)
        elif kind == "parquet":
            records.to_parquet(path, batch_size=7)
        else:
            records.save_to_disk(folder / f"d{f}")
            (folder / f"d{f}" / "data-00000-of-00001.arrow").rename(path)
            for left in (folder / f"d{f}").iterdir():
                left.unlink()
            (folder / f"d{f}").rmdir()
    return f"hf://{folder}"


def stream(path: str, **options: Any) -> Stream:
    source = SourceConfig(path=path, streaming=True, **options)
    return Stream(source, Letters(), frozenset(), OnError.stop, 0)  # type: ignore[arg-type]


class Run:
    """All ranks of a run, one after another in this process."""

    def __init__(
        self, sources: list[Rows | Stream], weights: list[float], world_size: int, batch_size: int, **options: Any
    ) -> None:
        self.ranks = [
            Loader(
                sources,
                Mixture(weights, seed=1),
                seq_len=T,
                fill_id=0,
                batch_size=batch_size,
                rank=rank,
                world_size=world_size,
                stream_lanes=4,
                **options,
            )
            for rank in range(world_size)
        ]

    def take(self, n: int) -> list[list[int]]:
        """The labels of the next n batches of all ranks, by the number of the row."""
        parts = [[labels for _, labels in itertools.islice(loader, n)] for loader in self.ranks]
        return [row.tolist() for step in zip(*parts, strict=True) for row in torch.stack(step, 1).flatten(0, 1)]

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of all ranks' states: one value a name."""
        states = [loader.state_dict() for loader in self.ranks]
        assert len({s["position"] for s in states}) == 1
        return {key: value for state in states for key, value in state.items()}

    def load(self, state: dict[str, Any]) -> "Run":
        for loader in self.ranks:
            wanted = loader.state_dict()
            assert wanted.keys() <= state.keys(), "a checkpoint has everything that is asked for"
            loader.load_state_dict({key: state[key] for key in wanted})
        return self


def test_an_epoch_is_a_permutation_and_the_next_another() -> None:
    packed = rows()
    assert len(packed) == 63
    order = [row[0] for row in Run([packed], [1.0], 1, 3).take(42)]
    first, second = order[:63], order[63:]
    assert sorted(first) == sorted(second) == list(range(2, 1000, T))
    assert first != second


@pytest.fixture(scope="module", params=["prepared", "mixture", "stream", "few files", "arrow", "mixed"])
def sources(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(sources, weights): prepared tokens, streams of more files than lanes and of fewer, and both together."""
    folder = tmp_path_factory.mktemp("sets")
    many = stream(write_data_set(folder / "many", "parquet", 9))
    few = stream(write_data_set(folder / "few", "jsonl", 3))
    return {
        "prepared": ([rows()], [1.0]),
        "mixture": ([rows(), rows(500, first=2000)], [0.7, 0.3]),
        "stream": ([many], [1.0]),
        "few files": ([few], [1.0]),
        "arrow": ([stream(write_data_set(folder / "arrow", "arrow", 2))], [1.0]),
        "mixed": ([rows(), many, few], [0.5, 0.3, 0.2]),
    }[request.param]


@pytest.fixture(scope="module")
def whole(sources: Any) -> list[list[int]]:
    """The rows as one rank and one process read them."""
    return Run(*sources, 1, 4).take(60)


@pytest.mark.parametrize(("world_size", "batch_size"), [(2, 4), (4, 2), (2, 1), (3, 2), (8, 1)])
def test_ranks_share_the_rows(sources: Any, whole: list[list[int]], world_size: int, batch_size: int) -> None:
    n = 60 * 4 // (world_size * batch_size)
    assert Run(*sources, world_size, batch_size).take(n) == whole


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_any_number_of_processes(sources: Any, whole: list[list[int]], num_workers: int) -> None:
    assert Run(*sources, 2, 2, num_workers=num_workers).take(60) == whole


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resume_continues_with_the_very_next_row(sources: Any, whole: list[list[int]], num_workers: int) -> None:
    for cut in (1, 15, 31):
        first = Run(*sources, 1, 4, num_workers=num_workers)
        head = first.take(cut)
        second = Run(*sources, 1, 4, num_workers=num_workers).load(first.state())
        assert head + second.take(60 - cut) == whole


@pytest.mark.parametrize(
    "sizes", [[(2, 2), (1, 4)], [(1, 4), (4, 1)], [(4, 1), (2, 3), (1, 5)], [(1, 1), (3, 1), (2, 1)], [(1, 6), (8, 1)]]
)
def test_on_another_number_of_ranks_no_token_is_lost_or_seen_twice(
    sources: Any, whole: list[list[int]], sizes: list[tuple[int, int]]
) -> None:
    seen: list[list[int]] = []
    state = None
    for world_size, batch_size in sizes:
        run = Run(*sources, world_size, batch_size)
        if state is not None:
            run.load(state)
        seen += run.take(7)
        state = run.state()
    assert seen == whole[: len(seen)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_files", [1, 2, 6])
def test_a_stream_loses_no_token(tmp_path: Path, kind: str, n_files: int) -> None:
    """An epoch of a lane is the lane's documents, each once: found again in the labels."""
    of = stream(write_data_set(tmp_path / "set", kind, n_files))
    all_rows = Run([of], [1.0], 1, 4).take(220)
    found: list[str] = []
    for lane in range(4):
        flat = "".join(chr(c) for row in all_rows[lane::4] for c in row)
        documents = flat.replace("\x01", "").split("\x02")[:-1]
        epoch = list(dict.fromkeys(documents))
        assert documents[: len(epoch)] == epoch, "all of them before any of them again"
        found += epoch
    assert sorted(found) == sorted(text(i) for i in range(200))


def test_a_streams_second_epoch_has_another_order(tmp_path: Path) -> None:
    of = stream(write_data_set(tmp_path / "set", "jsonl", 4))
    flat = "".join(chr(c) for row in Run([of], [1.0], 1, 4).take(220)[::4] for c in row)
    documents = flat.replace("\x01", "").split("\x02")
    first, second = documents[:50], documents[50:100]
    assert sorted(first) == sorted(second)
    assert first != second


def test_a_stream_that_ends_or_breaks_is_told(tmp_path: Path) -> None:
    path = write_data_set(tmp_path / "set", "jsonl", 4)
    with pytest.raises(DataError, match=r"set: read 1 times \(epochs\)"):
        Run([stream(path, epochs=1)], [1.0], 1, 4).take(200)
    with pytest.raises(DataError, match=r"read 1 times"):
        Run([stream(path, epochs=1)], [1.0], 1, 4, num_workers=2).take(200)
    with pytest.raises(DataError, match=r"no column txet \(text_field\); columns: text"):
        Run([stream(path, text_field="txet")], [1.0], 1, 4).take(1)
    with pytest.raises(DataError, match=r"nowhere: cannot be opened"):
        Run([stream("hf:///nowhere")], [1.0], 1, 4).take(1)
    with pytest.raises(DataError, match=r"lane \d of 4 got no document; a smaller data.stream_lanes"):
        Run([stream(write_data_set(tmp_path / "tiny", "jsonl", 1, n_records=3))], [1.0], 1, 4).take(50)


def test_bad_records_of_a_stream_stop_or_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    records = [{"text": text(i) if i % 50 else None} for i in range(200)]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    source = SourceConfig(path=f"hf://{folder}", streaming=True)
    with pytest.raises(DataError, match=r"lane 0, record 1: no text in field 'text'.*data\.on_error=skip"):
        Run([Stream(source, Letters(), frozenset(), OnError.stop, 9)], [1.0], 1, 4).take(1)  # type: ignore[arg-type]
    skip = Stream(source, Letters(), frozenset(), OnError.skip, 9)  # type: ignore[arg-type]
    labels = "".join(chr(c) for row in Run([skip], [1.0], 1, 4).take(20) for c in row)
    assert "<49:" in labels or "<51:" in labels
    few = Stream(source, Letters(), frozenset(), OnError.skip, 1)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"more than data\.max_errors=1"):
        Run([few], [1.0], 1, 4).take(30)


def test_validation_covers_every_row_once_on_any_number_of_ranks() -> None:
    packed = rows(n=700)
    for world_size, batch_size in itertools.product((1, 2, 3), (1, 4)):
        batches = [
            list(
                validation_batches(
                    packed, max_rows=None, batch_size=batch_size, fill_id=0, rank=r, world_size=world_size
                )
            )
            for r in range(world_size)
        ]
        assert len({len(b) for b in batches}) == 1, "every rank takes part in every forward"
        labels = torch.cat([labels.flatten() for b in batches for _, labels in b])
        assert sorted(labels[labels != IGNORE_INDEX].tolist()) == list(range(2, 701))


def test_short_validation_is_spread_over_the_text() -> None:
    starts = [b[0][0, 0].item() for b in validation_batches(rows(), max_rows=3, batch_size=1, fill_id=0)]
    assert starts == [1, 1 + 21 * 16, 1 + 42 * 16]
