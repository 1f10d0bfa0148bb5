"""A measurement of train.acceptance that is no command: `python -m train.gpu.work NAME RESULT.json OPTIONS`.

OPTIONS is a JSON object; what the measurement returns is written to the file.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from train.gpu.allocator import let_segments_grow

KINDS = {
    "probe": "train.gpu.probe:probe",
    "parity": "train.gpu.parity:parity",
    "training": "train.gpu.training:training",
    "random_model": "train.gpu.random_model:write_random_model",
}
"""Imported when asked for: with a torch that torchtitan does not run on, the others still do."""


def measure(name: str, options: dict[str, Any]) -> Any:
    """What a step of that name has found; what follows the kind in its name is for people."""
    let_segments_grow()
    [kind] = [kind for kind in KINDS if name.startswith(kind)]
    module, function = KINDS[kind].split(":")
    return getattr(importlib.import_module(module), function)(**options)


if __name__ == "__main__":
    _, step, file, given = sys.argv
    found = measure(step, json.loads(given))
    Path(file).write_text(json.dumps(found, indent=1))
