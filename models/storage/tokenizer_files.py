"""The tokenizer of a stored model, whatever its form, as the files that transformers' AutoTokenizer reads."""

import shutil
import sys
from pathlib import Path

from models.storage.gguf.tokenizer import write_gguf_tokenizer
from models.storage.hf_tokenizer import SpecialIds, special_ids, write_tokenizer
from models.storage.stored import Stored


def write_tokenizer_files(stored: Stored, folder: Path) -> SpecialIds:
    """Write them; ids of where a text begins and ends. Without a tokenizer a line says so, and nothing is written.

    Raises FormatError for a tokenizer that transformers cannot have.
    """
    if stored.gguf:
        return write_gguf_tokenizer(stored.gguf, folder)
    for file in stored.tokenizer_files:
        shutil.copy(file, folder)
    if stored.hf is not None:
        return SpecialIds(stored.hf.get("bos_token_id"), stored.hf.get("eos_token_id"))
    if not stored.tokenizer_files:
        print(f"{stored.folder}: no tokenizer there, none written", file=sys.stderr)
        return SpecialIds(None, None)
    if (folder / "tokenizer.json").exists():
        return special_ids(folder)
    return write_tokenizer(stored.folder / "tokenizer.model", folder, stored.size.max_seq_len)
