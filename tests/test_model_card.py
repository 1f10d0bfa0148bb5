"""The card of an exported model: its recipe is what decides about its weights, and nothing of the machine."""

from dataclasses import asdict, fields

from conftest import compose_config

from data.config import DataConfig
from models.storage.model_card import model_card
from models.storage.recipe import RECIPE
from train.config import TrainConfig
from train.run_dir import resolved

LEFT_OUT = {
    TrainConfig: {"local_batch_size", "log_every", "loss_chunk_tokens", "compile", "expandable_segments"}
    # Of these follow train.steps and train.global_batch_size.
    | {"epochs", "records_per_step"},
    DataConfig: {"on_error", "max_errors", "cache_dir", "num_workers", "stream_lanes", "validation_documents"},
}
# Shown by source, or by the tokenizer's own files.
ELSEWHERE = {"name", "source", "text_field", "sources", "tokenizer"}


def card(*overrides: str, initial: str | None = None) -> str:
    config = compose_config(*overrides)
    config.checkpoint.initial = initial
    return model_card("m", "m", config.model, 1, None, resolved(config))


def test_every_key_is_of_the_recipe_or_left_out() -> None:
    for section, kind in (("train", TrainConfig), ("data", DataConfig)):
        keys = {f.name for f in fields(kind)} - (ELSEWHERE if kind is DataConfig else set())
        assert keys == {*(RECIPE[section] or ())} | LEFT_OUT[kind], "sort the new key into one of them"


def test_the_recipe_has_no_folder_of_the_machine() -> None:
    text = card("data=text", "data.source=/home/somebody/books.jsonl", initial="/home/somebody/model")
    assert "| data.sources.text.path | books.jsonl |" in text
    assert "| checkpoint.initial | model |" in text
    assert "/home" not in text
    assert not [key for keys in LEFT_OUT.values() for key in keys if f".{key} |" in text]
    assert {f"| optimizer.{key} |" in text for key in asdict(compose_config().optimizer)} == {True}


def test_a_data_set_of_the_hub_is_named_in_full() -> None:
    text = card("data=c4")
    assert "| data.sources.c4.path | hf://allenai/c4 |" in text
    assert "| data.sources.c4.subset | en |" in text
