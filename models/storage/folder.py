"""A stored model as a Hugging Face folder, to keep or for as long as somebody reads it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from models.storage.stored import Stored
from models.storage.tokenizer_files import write_tokenizer_files
from models.storage.write_hf import write_hf


def write_folder(
    stored: Stored, folder: Path, *, dtype: torch.dtype | None = None, max_shard_bytes: float = 4e9
) -> None:
    """Write its weights, in `dtype` or as they are, and its tokenizer."""
    special = write_tokenizer_files(stored, folder)
    write_hf(
        stored.weights,
        folder,
        dtype=dtype,
        max_shard_bytes=max_shard_bytes,
        bos_id=special.bos_id,
        eos_id=special.eos_id,
    )


@contextmanager
def exported(stored: Stored) -> Iterator[Path]:
    """The folder: the model's own where it is one and has all layers, else one that lasts as long as the context."""
    if stored.hf is not None and stored.hf["num_hidden_layers"] == stored.size.n_layers:
        yield stored.folder
        return
    with TemporaryDirectory() as name:
        write_folder(stored, Path(name))
        yield Path(name)
