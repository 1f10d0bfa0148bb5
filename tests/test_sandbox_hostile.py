"""Hostile programs do no harm, which they do without the sandbox."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import GREEDY, HOSTILE, Control
from victims import REPOSITORY, SECRET, Victims, sandboxed, unprotected

ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def victims() -> Iterator[Victims]:
    with pytest.MonkeyPatch.context() as patch, Victims() as made:
        patch.setenv("OF_THE_PARENT", SECRET)
        yield made


@pytest.mark.sandbox
@pytest.mark.parametrize("name", HOSTILE)
def test_no_harm(name: str, victims: Victims) -> None:
    assert victims.harms(HOSTILE[name], sandboxed()) == []


@pytest.mark.parametrize("name", [name for name, hostile in HOSTILE.items() if hostile.control is not Control.nobody])
def test_harm_without_the_sandbox(name: str, victims: Victims) -> None:
    if HOSTILE[name].control is Control.root and not ROOT:
        pytest.skip("needs root to do harm")
    assert victims.harms(HOSTILE[name], unprotected)


def for_nobody() -> str | None:
    """An interpreter that an ordinary user can run."""
    for python in (sys.executable, "/usr/bin/python3"):
        check = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python, "-c"]
        usable = (
            "import os, sys; sys.exit(sys.version_info < (3, 11) or not os.access(os.path.realpath(sys.executable), 1))"
        )
        if shutil.which("setpriv") and subprocess.run([*check, usable], capture_output=True).returncode == 0:
            return python
    return None


@pytest.mark.parametrize("way", ["user", "bubblewrap"])
def test_no_harm_to_an_ordinary_user(way: str) -> None:
    if not ROOT or not (python := for_nobody()):
        pytest.skip("needs root, setpriv and an interpreter that others can run")
    if way == "bubblewrap" and not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed")
    with tempfile.TemporaryDirectory() as folder:  # the repository may not be for others to read
        copy = Path(folder)
        copy.chmod(0o755)
        shutil.copytree(REPOSITORY / "eval" / "sandbox", copy / "eval" / "sandbox")
        shutil.copy(REPOSITORY / "eval" / "__init__.py", copy / "eval")
        (copy / "tests").mkdir()
        for name in ("hostile.py", "victims.py"):
            shutil.copy(REPOSITORY / "tests" / name, copy / "tests")
        words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python, "tests/victims.py", way]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": folder, "HOME": "/nonexistent"}
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, f"{len(HOSTILE) + len(GREEDY)} programs, 0 did harm\n"), done.stderr
