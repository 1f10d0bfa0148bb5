"""A stored model as a Hugging Face folder, for as long as somebody reads it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from models.storage.stored import Stored
from models.storage.tokenizer_files import write_tokenizer_files
from models.storage.write_hf import write_hf


@contextmanager
def exported(stored: Stored) -> Iterator[Path]:
    """The folder: the model's own where it is one and has all layers, else one that lasts as long as the context."""
    if stored.hf is not None and stored.hf["num_hidden_layers"] == stored.size.n_layers:
        yield stored.folder
        return
    with TemporaryDirectory() as name:
        special = write_tokenizer_files(stored, Path(name))
        write_hf(
            stored.weights,
            Path(name),
            dtype=None,
            max_shard_bytes=4e9,
            bos_id=special.bos_id,
            eos_id=special.eos_id,
        )
        yield Path(name)
