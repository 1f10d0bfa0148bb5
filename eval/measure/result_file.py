"""Where a command writes by default: into the checkpoint's folder, and never over another measurement."""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conf.output import writable
from conf.strict import ConfigError
from eval.measure.result_name import changed_from_default, named
from models.storage.checkpoints import complete_checkpoints, is_checkpoint
from models.storage.stored import Stored


def output_of(config: Any, stored: Stored, command: str, suffix: str = ".json", *, text: str | None = None) -> Path:
    """The path that `config.output` gives, else one in the checkpoint's folder that says what is not the default.

    Args:
        config: of the command, with `checkpoint` and `output`.
        stored: the checkpoint.
        command: the name's beginning.
        suffix: of the file.
        text: what the command is about, where it is about one text, however that was given.

    Raises ConfigError when nothing can be written there.
    """
    if config.output:
        return writable(config.output)
    step = _older_step(config.checkpoint, stored)
    parts = ({"step": step} if step else {}) | ({} if text is None else {"text": text})
    parts |= changed_from_default(config, () if text is None else ("prompt", "prompt_file"))
    try:
        return writable(stored.folder / (named(command, parts) + suffix))
    except ConfigError as error:
        raise ConfigError(f"{error}; say where to write, with output=PATH{suffix}") from None


def set_aside(files: Sequence[Path], samples_file: str) -> None:
    """Rename what is in the way and was another measurement's (other weights, another machine), and say so.

    Args:
        files: about to be written; the first is the .json, which names its samples_file.
        samples_file: of what is about to be written; its name carries the fingerprint of the measurement.
    """
    other = _samples_file(files[0])
    found = re.search(r"\.samples-(\w+)\.jsonl$", other or "")
    if not found or other == samples_file:
        return
    kept = {file: file.with_name(f"{file.stem}.{found[1]}{file.suffix}") for file in files if file.exists()}
    for file, name in kept.items():
        file.rename(name)
    print(f"{files[0]} was of another measurement; it is {kept[files[0]].name} now", file=sys.stderr)


def _samples_file(path: Path) -> str | None:
    try:
        content = json.loads(path.read_text())
        return str((content[0] if isinstance(content, list) else content)["samples_file"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _older_step(checkpoint: str, stored: Stored) -> str | None:
    """`300` of outputs/demo/checkpoint/step-300 when the run has a newer one, for which the run folder stands."""
    folder = Path(checkpoint).expanduser()
    if stored.run is None or not is_checkpoint(folder):
        return None
    newest = max(complete_checkpoints(stored.folder).items(), default=(0, folder))[1]
    return None if newest.resolve() == folder.resolve() else folder.name.removeprefix("step-")
