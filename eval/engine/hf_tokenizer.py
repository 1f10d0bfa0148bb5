"""The tokenizer as transformers has it: what lm-eval reads texts with, and what knows a chat template."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from conf.errors import reason
from eval.engine.checkpoint import Checkpoint
from models.storage.errors import FormatError
from models.storage.tokenizer_files import write_tokenizer_files


def transformers_tokenizer(checkpoint: Checkpoint) -> Any:
    """The tokenizer that AutoTokenizer makes of the checkpoint once it is exported. Raises FormatError."""
    from transformers import AutoTokenizer  # takes seconds

    stored = checkpoint.stored
    with TemporaryDirectory() as folder:
        if stored.hf is None:
            write_tokenizer_files(stored, Path(folder))
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder if stored.hf is None else stored.folder)
        except Exception as error:
            raise FormatError(f"{stored.folder}: transformers cannot read its tokenizer ({reason(error)})") from None
    if tokenizer.eos_token_id is None:
        raise FormatError(f"{stored.folder}: its tokenizer has no token that ends a text")
    return tokenizer


def end_ids(tokenizer: Any, checkpoint: Checkpoint) -> frozenset[int]:
    """Tokens that end a generation: the tokenizer's, and those that config.json names."""
    named = (checkpoint.stored.hf or {}).get("eos_token_id")
    several = named if isinstance(named, list) else [named]
    return frozenset(i for i in (tokenizer.eos_token_id, *several) if i is not None)
