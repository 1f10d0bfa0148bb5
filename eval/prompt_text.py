"""The text, or texts, that a command is given to continue."""

import sys
from pathlib import Path

from conf.strict import ConfigError
from data.config import DataError
from data.sources.documents import Bad
from data.sources.records import line_records


def prompt_text(text: str | None, prompt_file: str) -> str:
    """The text to continue: `text`, or what the file or, for `-`, standard input has.

    Without the newline that an editor or echo ends it with. Raises ConfigError.
    """
    if text is None:
        name = "standard input" if prompt_file == "-" else prompt_file
        if prompt_file == "-" and sys.stdin.isatty():
            print("the text to continue, then Ctrl-D:", file=sys.stderr)
        try:
            raw = sys.stdin.buffer.read() if prompt_file == "-" else Path(name).expanduser().read_bytes()
            text = raw.decode("utf-8").removesuffix("\n")
        except OSError as error:
            raise ConfigError(f"prompt_file={name}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise ConfigError(f"prompt_file={name}: not UTF-8 (byte {error.start}); convert it") from None
    if not text:
        raise ConfigError("prompt: is empty; give some text to continue, with prompt=, prompt_file= or standard input")
    if not _is_text(text):
        raise ConfigError("prompt: not UTF-8; give it as it is in a UTF-8 file, with prompt_file=")
    return text


def prompt_texts(text: str | None, prompt_file: str) -> list[str]:
    """The texts to continue: the "prompt" of each line of a .jsonl file, else the one that `prompt_text` finds.

    Raises ConfigError, and DataError for a line that has none.
    """
    if text is not None or not prompt_file.endswith(".jsonl"):
        return [prompt_text(text, prompt_file)]
    path = Path(prompt_file).expanduser()
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"prompt_file={prompt_file}: {error.strerror}") from None
    texts = []
    for line, record in line_records(raw, path, 1, None):
        if isinstance(record, Bad):
            raise DataError(record.message)
        found = record.get("prompt") if isinstance(record, dict) else None
        if not isinstance(found, str) or not found:
            raise DataError(f'{path}:{line}: no text under "prompt"; each line must be an object with one')
        if not _is_text(found):
            raise DataError(f'{path}:{line}: half a surrogate pair under "prompt"; write the character itself')
        texts.append(found)
    if not texts:
        raise ConfigError(f"prompt_file={prompt_file}: has no prompt")
    return texts


def _is_text(text: str) -> bool:
    """Whether all of it can be written; bytes of a command line that are no UTF-8, and half pairs in JSON, cannot."""
    return not any("\ud800" <= c <= "\udfff" for c in text)
