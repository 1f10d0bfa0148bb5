"""The first 50 steps of the demo's configuration against numbers in a file: nothing changes what is trained unnoticed.

The text is made here, since the standard library's differs from one Python to the next. When the numbers must change:
WRITE_GOLDEN=1 python -m pytest tests/test_golden.py -m slow
"""

import json
import os
import random
from pathlib import Path

import pytest
from conftest import run_ranks
from training import rows, train

GOLDEN = Path(__file__).parent / "golden" / "demo.json"
STEPS = 50
# Sums are rounded in another order on another CPU, and 50 steps let that grow.
TOLERANCE = 2e-3


def write_text(folder: Path) -> None:
    """Files of something like code, the same on every machine."""
    words = random.Random(0)
    folder.mkdir()
    names = ["".join(words.choices("abcdefghijklmnopqrstuvwxyz_", k=words.randint(2, 9))) for _ in range(800)]
    for i in range(60):
        lines = []
        for _ in range(150):
            f, *rest = (names[min(int(words.expovariate(0.01)), 799)] for _ in range(4))
            lines.append(f"def {f}({rest[0]}, {rest[1]}={words.randint(0, 99)}):\n    return {rest[0]}.{rest[2]}\n")
        (folder / f"{i:02}.py").write_text("\n".join(lines))


def first_steps(rank: int, tmp: Path) -> None:
    overrides = ["experiment=demo", "data=text", f"data.source={tmp}/text", f"data.cache_dir={tmp}/cache"]
    overrides += ["train.precision=fp32", "train.log_every=1", "wandb.mode=disabled", "validation.tokens=4096"]
    train(rank, tmp / "run", [*overrides, f"validation.every={STEPS}"], kill_in_step=STEPS + 1)


@pytest.mark.slow
def test_the_first_steps_of_the_demo(tmp_path: Path) -> None:
    write_text(tmp_path / "text")
    run_ranks(first_steps, 1, tmp_path)
    kept = ("step", "train/objective", "train/loss/", "train/grad_norm", "train/lr", "val/loss/")
    found = [{k: v for k, v in row.items() if k.startswith(kept)} for row in rows(tmp_path / "run")]
    if os.environ.get("WRITE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text("[\n" + ",\n".join(map(json.dumps, found)) + "\n]\n")
    wanted = json.loads(GOLDEN.read_text())
    assert len(found) == len(wanted) == STEPS + 1
    for a, b in zip(found, wanted, strict=True):
        assert a.keys() == b.keys()
        for key, value in b.items():
            tolerance = 0.05 if key == "train/grad_norm" else TOLERANCE
            assert a[key] == pytest.approx(value, rel=tolerance), f"step {b['step']}: {key}"
