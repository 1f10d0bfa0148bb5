"""The text, or texts, that a command is given to continue."""

import sys
from pathlib import Path

from conf.strict import ConfigError
from data.config import DataError
from data.sources.documents import Bad
from data.sources.records import line_records
from eval.prompts.text import first_turn, is_text


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
    if not is_text(text):
        raise ConfigError("prompt: not UTF-8; give it as it is in a UTF-8 file, with prompt_file=")
    return text


def prompt_texts(text: str | None, prompt_file: str, field: str) -> list[str]:
    """The texts to continue: `field` of each line of a .jsonl file, else the one that `prompt_text` finds.

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
        if not isinstance(record, dict):
            raise DataError(f"{path}:{line}: not an object with a field '{field}'")
        texts.append(first_turn(record, field, f"{path}:{line}", "field"))
    if not texts:
        raise ConfigError(f"prompt_file={prompt_file}: has no prompt")
    return texts
