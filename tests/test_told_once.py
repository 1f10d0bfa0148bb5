"""Messages about files name them, and do so once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.checkpoint.api import CheckpointException

from conf.errors import reason
from data.config import DataError, SourceConfig, TokenizerConfig
from data.corpus import trained_tokenizer
from data.prepared.shards import open_part
from data.sources.hub import open_stream
from data.sources.source_files import find_files
from models.storage.errors import FormatError
from models.storage.stored import read


def other_kind(path: Path) -> None:
    path.touch()
    find_files(str(path))


def empty(path: Path) -> None:
    path.with_suffix(".txt").touch()
    source = SourceConfig(path=str(path.with_suffix(".txt")))
    trained_tokenizer({"x": source}, TokenizerConfig(vocab_size=300), 0.1, path / "cache")


def without_config(path: Path) -> None:
    (path / "config.json").mkdir(parents=True)
    read(path)


def of_another_kind_of_model(path: Path) -> None:
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "gpt2"}')
    read(path)


def gone_shard(path: Path) -> None:
    shard = {"tokens": "tokens.npy", "tokens_sha256": "", "documents": "documents.npy", "documents_sha256": ""}
    open_part(path, {"parts": {"train": [shard]}}, "train")


MISTAKES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "of another kind": (other_kind, r"/it: not one of \.txt"),
    "empty": (empty, r"/it\.txt: no text is left"),
    "a folder that is not there, of datasets": (
        lambda p: open_stream(SourceConfig(path=f"hf://{p}")),
        "no such folder",
    ),
    "a folder for a file": (without_config, r"/it/config\.json: cannot be read \(Is a directory\)"),
    "another model": (of_another_kind_of_model, r"/it/config\.json: model_type 'gpt2' is not 'llama'"),
    "a file that is gone": (gone_shard, r"/it/tokens\.npy: cannot be read \(No such file or directory\)"),
    "neither": (read, "/it: neither a run folder"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_path_is_named_once(mistake: str, tmp_path: Path) -> None:
    make, message = MISTAKES[mistake]
    with pytest.raises((DataError, FormatError), match=message) as told:
        make(tmp_path / "it")
    assert str(told.value).count(str(tmp_path)) == 1, told.value


def test_what_a_rank_met_is_told() -> None:
    """Its text would be 'CheckpointException ranks:dict_keys([0])'."""
    error = CheckpointException("load", {0: (RuntimeError("Missing key lm_head.weight\nand more"), [])})  # type: ignore[dict-item]
    assert reason(error) == "Missing key lm_head.weight"
