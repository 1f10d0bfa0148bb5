"""The text that a command is given to continue."""

import sys
from pathlib import Path

from conf.strict import ConfigError


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
    return text
