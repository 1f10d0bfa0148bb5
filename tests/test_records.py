"""Steps and rows counted in records."""

import json
import re
from pathlib import Path

import pytest
from conftest import TINY_TEXT, compose_config

from conf.strict import ConfigError
from data.corpus import prepare
from data.training import Records, count_records, keeps_apart
from train.cost.records import check_apart, counted, described, in_rows

OPTIONS = [
    "model.dim=32",
    "model.vocab_size=400",
    "data=prompt_completion",
    "train.seq_len=64",
    "train.global_batch_size=4",
]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("records")
    text = [line for line in TINY_TEXT.splitlines() if line.strip()][:800]
    lines = [json.dumps({"prompt": a[:40], "completion": b[:40]}) for a, b in zip(text[::2], text[1::2], strict=True)]
    (folder / "r.jsonl").write_text("\n".join(lines))
    return [*OPTIONS, f"data.source={folder}/r.jsonl", f"data.cache_dir={folder}/cache"]


def test_rows_and_steps(records: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    config = compose_config(*records, "train.records_per_step=32", "train.epochs=2.5")
    corpus = prepare(config.data)
    found = count_records(corpus, config.data, 64)
    assert found is not None
    n = sum(len(shard.documents) for source in corpus.sources for shard in source.content.shards)  # type: ignore[union-attr]
    assert found.n_records == n
    assert 350 < n < 400, "the rest is held out"
    assert found.per_row == n / found.n_rows
    train = counted(config, corpus, 1).train
    assert abs(train.global_batch_size * found.per_row - 32) <= found.per_row / 2
    assert train.local_batch_size == train.global_batch_size
    assert (train.steps - 1) * train.global_batch_size < 2.5 * found.n_rows <= train.steps * train.global_batch_size
    assert f"times the {n} there are" in described(train, found)
    again = compose_config(*records, "train.steps=7")
    assert counted(again, corpus, 1).train == compose_config(*records, "train.steps=7").train, "nothing is asked for"


def test_rows_are_a_multiple_of_what_ranks_take() -> None:
    found = Records(n_records=1000, n_rows=250, per_row=4.0)
    for asked, local, ranks, rows, local_rows in (
        (256, "null", 8, 64, 8),  # no accumulation: the rows of a rank follow
        (250, "null", 8, 64, 8),
        (256, "2", 8, 64, 2),  # accumulation in twos
        (40, "4", 2, 8, 4),
        (1, "null", 2, 2, 1),
    ):
        options = ["train.global_batch_size=16", f"train.local_batch_size={local}", f"train.records_per_step={asked}"]
        if local == "2":
            options[0] = "train.global_batch_size=32"
        config = compose_config(*options, world_size=ranks)
        train = in_rows(config.train, found, ranks)
        assert (train.global_batch_size, train.local_batch_size) == (rows, local_rows), asked


def test_records_are_kept_apart_unless_told_otherwise(records: list[str], tiny_run: list[str]) -> None:
    config = compose_config(*records)
    corpus = prepare(config.data)
    assert keeps_apart(corpus, config.data)
    assert not keeps_apart(corpus, compose_config(*records, "data.attend_across_documents=true").data)
    text = compose_config(*tiny_run)
    assert not keeps_apart(prepare(text.data), text.data)
    text = compose_config(*tiny_run, "data.attend_across_documents=false")
    assert keeps_apart(prepare(text.data), text.data)


@pytest.mark.parametrize("key", ["epochs", "records_per_step"])
def test_mistakes(key: str, records: list[str]) -> None:
    with pytest.raises(ConfigError, match=rf"train\.{key}=0.*: must be null or"):
        compose_config(f"train.{key}=0")
    config = compose_config(*records, "train.epochs=1e-9", "layer_dropout=exp_scratch")
    config.train.epochs = None
    config.train.records_per_step = 10**16
    with pytest.raises(ConfigError, match=re.escape("train.records_per_step=1e+16: train.steps=1000: the run's")):
        counted(config, prepare(config.data), 1)


def test_prepared_shards_of_records_are_known_by_their_prompts(records: list[str], tmp_path: Path) -> None:
    config = compose_config(*records)
    [source] = prepare(config.data).sources
    [shards] = {p.parent for p in Path(config.data.cache_dir).glob("records-*/manifest.json")}
    again = compose_config(*[o for o in records if "data" not in o], "data=shards", f"data.source={shards}",
                           f"data.cache_dir={tmp_path}")  # fmt: skip
    assert keeps_apart(prepare(again.data), again.data)
    assert source.config.format.value == "prompt_completion"


def test_context_parallelism_cannot_keep_records_apart(records: list[str]) -> None:
    config = compose_config(*records, "parallelism.context=2", world_size=2)
    corpus = prepare(config.data)
    with pytest.raises(ConfigError, match=r"parallelism\.context=2: documents of a row cannot be kept apart under it"):
        check_apart(config, corpus)
    config.data.attend_across_documents = True
    check_apart(config, corpus)
