"""`--help` and a wrong key answer at once: a command imports what is heavy only when it begins to work."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_layout import ENTRIES

ROOT = Path(__file__).parent.parent
# Each takes from a quarter of a second to several seconds.
HEAVY = (
    "absl",
    "datasets",
    "gguf",
    "lm_eval",
    "matplotlib",
    "nltk",
    "pandas",
    "pyarrow",
    "rouge_score",
    "safetensors",
    "sentencepiece",
    "tokenizers",
    "torch",
    "torchtitan",
    "transformers",
    "wandb",
    "wandb_workspaces",
)
LINES = ("--help", "wrong_key=1", "+wrong_key=1")
# Runs a module as `python -m` does, once for each line that its user may begin with; then tells what it has imported.
STARTS = """
import contextlib, io, json, runpy, sys
module, heavy, lines = json.loads(sys.argv[1])
for line in lines:
    sys.argv[1:] = [line]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.suppress(SystemExit):
        runpy.run_module(module, run_name="__main__")
    print(json.dumps([out.getvalue(), err.getvalue()]))
print(json.dumps([name for name in heavy if name in sys.modules]))
"""


@pytest.mark.parametrize("module", sorted(ENTRIES))
def test_what_is_heavy_is_not_imported_for_help_or_a_wrong_key(module: str) -> None:
    words = [sys.executable, "-c", STARTS, json.dumps([module, HEAVY, LINES])]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    *told, imported = [json.loads(line) for line in done.stdout.splitlines()]
    (help_text, _), *mistakes = told
    assert "checkpoint" in help_text or "output" in help_text
    for _, message in mistakes:
        assert message.startswith("error: wrong_key: unknown key")
        assert message.count("\n") == 1
    assert not imported


def test_decoding_does_not_import_the_compiler(trained: Path) -> None:
    """It takes a second of every command; on a CPU nothing but compiled passes needs it."""
    words = "import sys; from eval.engine import load; load(sys.argv[1]).generate(['a'], max_new_tokens=2)"
    words += "; print('torch._dynamo' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", words, str(trained)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
