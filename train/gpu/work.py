"""A measurement of train.acceptance that is no command: `python -m train.gpu.work NAME RESULT.json OPTIONS`.

OPTIONS is a JSON object; what the measurement returns is written to the file.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from train.gpu.allocator import let_segments_grow


def measure(name: str, options: dict[str, Any]) -> Any:
    """What a step of that name has found; what follows the kind in its name is for people."""
    let_segments_grow()
    from train.gpu.parity import parity
    from train.gpu.probe import probe
    from train.gpu.random_model import write_random_model
    from train.gpu.training import training

    kinds: dict[str, Callable[..., Any]] = {
        "probe": probe,
        "parity": parity,
        "training": training,
        "random_model": write_random_model,
    }
    [kind] = [kind for kind in kinds if name.startswith(kind)]
    return kinds[kind](**options)


if __name__ == "__main__":
    _, step, file, given = sys.argv
    found = measure(step, json.loads(given))
    Path(file).write_text(json.dumps(found, indent=1))
