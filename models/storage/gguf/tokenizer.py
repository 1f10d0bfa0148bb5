"""The tokenizer inside a GGUF file, as Hugging Face files."""

from pathlib import Path

from conf.errors import reason
from models.storage.errors import FormatError
from models.storage.hf_tokenizer import SpecialIds


def write_gguf_tokenizer(file: Path, folder: Path) -> SpecialIds:
    """Write tokenizer.json and its configuration; transformers knows the kinds of tokenizers that GGUF files hold.

    Raises FormatError for one it does not know.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    except Exception as error:
        raise FormatError(f"{file}: its tokenizer cannot be read ({reason(error)})") from None
    tokenizer.save_pretrained(folder)
    return SpecialIds(tokenizer.bos_token_id, tokenizer.eos_token_id)
