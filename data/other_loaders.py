"""What ours is measured against: torchtitan's loader, and `datasets` streaming, on the same files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torchtitan.components.dataloader import ParallelAwareDataloader
from torchtitan.hf_datasets import DatasetConfig, text_datasets

from data.tokenizers.tokenizer import Tokenizer


def _opened(path: str) -> Any:
    files = sorted(str(f) for f in Path(path).glob("*.jsonl"))
    return datasets.load_dataset("json", data_files=files, split="train", streaming=True)


class _TitanTokenizer:
    """Our tokenizer as torchtitan calls one."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str, add_bos: bool, add_eos: bool) -> list[int]:
        assert add_bos
        assert add_eos
        return self._tokenizer.encode_document(text)


def torchtitan_batches(
    folder: Path, tokenizer: Tokenizer, seq_len: int, batch_size: int, num_workers: int
) -> Iterator[torch.Tensor]:
    """The text data set and data loader of torchtitan, streaming."""
    text_datasets.DATASETS["jsonl"] = DatasetConfig(str(folder), _opened, lambda sample: sample["text"])
    rows = text_datasets.HuggingFaceTextDataset(
        "jsonl",
        str(folder),
        _TitanTokenizer(tokenizer),
        seq_len,
        infinite=True,
    )
    loader = ParallelAwareDataloader(rows, dp_rank=0, dp_world_size=1, batch_size=batch_size, num_workers=num_workers)
    for inputs, _ in loader:
        yield inputs["input"]


def datasets_text_batches(
    folder: Path, tokenizer: Tokenizer, seq_len: int, batch_size: int, num_workers: int
) -> Iterator[torch.Tensor]:
    """Text through `datasets` as its documentation says: map tokenizes batches and cuts them into rows."""

    def packed(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        ids = [i for text in batch["text"] for i in tokenizer.encode_document(text)]
        return {"input": [ids[i : i + seq_len] for i in range(0, len(ids) - seq_len + 1, seq_len)]}

    rows = _opened(str(folder)).map(packed, batched=True, batch_size=256, remove_columns=["text"])
    yield from _forever(rows.with_format("torch"), batch_size, num_workers)


def datasets_token_batches(folder: Path, batch_size: int, num_workers: int) -> Iterator[torch.Tensor]:
    """Rows that are tokens already, from Parquet files."""
    files = sorted(str(f) for f in folder.glob("*.parquet"))
    rows = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    yield from _forever(rows.with_format("torch"), batch_size, num_workers)


def write_token_rows(folder: Path, rows: np.ndarray, n_files: int) -> None:
    """Rows [N, T] of tokens as Parquet files."""
    folder.mkdir()
    for i, part in enumerate(np.array_split(rows, n_files)):
        datasets.Dataset.from_dict({"input": part}).to_parquet(folder / f"{i}.parquet")


def _forever(rows: Any, batch_size: int, num_workers: int) -> Iterator[torch.Tensor]:
    while True:
        for batch in torch.utils.data.DataLoader(rows, batch_size=batch_size, num_workers=num_workers):
            yield batch["input"]
