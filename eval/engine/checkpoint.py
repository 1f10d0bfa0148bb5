"""From a path to a model that decodes, and its tokenizer."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from eval.engine.draft_vocabulary import draft_ids
from models.inference import InferenceLlama
from models.storage.gguf.tokenizer import write_gguf_tokenizer
from models.storage.stored import Stored, read


class Checkpoint(NamedTuple):
    """A model on disk and its tokenizer."""

    stored: Stored
    tokenizer: Tokenizer

    def model(
        self, dtype: torch.dtype, device: torch.device, *, draft_vocab: int | None = None, **options: Any
    ) -> InferenceLlama:
        """The model, to decode in this dtype on this device; read tensor by tensor.

        Args:
            dtype: of what is computed.
            device: that computes.
            draft_vocab: tokens that drafts are chosen from (eval.engine.draft_vocabulary); None: all.
            options: InferenceLlama's.

        Raises ConfigError for a draft_vocab that the model cannot have.
        """
        stored = self.stored
        ids = None if draft_vocab is None else draft_ids(stored.folder, draft_vocab, stored.size.vocab_size)
        return InferenceLlama(stored.size, stored.weights, dtype=dtype, device=device, draft_ids=ids, **options)


def open_checkpoint(path: str | Path) -> Checkpoint:
    """A run folder (its newest checkpoint), a checkpoint of it, a Hugging Face folder or a .gguf file.

    Raises FormatError for what is no model, DataError for a tokenizer that is missing or unfit.
    """
    stored = read(path)
    if stored.gguf is None:
        return Checkpoint(stored, load_tokenizer(stored.folder))
    with TemporaryDirectory() as folder:
        write_gguf_tokenizer(stored.gguf, Path(folder))
        return Checkpoint(stored, load_tokenizer(folder))
