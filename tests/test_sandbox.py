"""What becomes of programs: who passes, and who meets which limit."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from victims import REPOSITORY

from eval.sandbox import run as sandbox
from eval.sandbox.limits import Limits, MiB, SandboxError, Status
from eval.sandbox.run import available, run, run_all
from eval.sandbox.seccomp import MACHINES, instructions
from eval.sandbox.way import Way

pytestmark = pytest.mark.sandbox
LIMITS = Limits(cpu_seconds=10, wall_seconds=30, memory_bytes=256 * MiB)

PASSES = {
    "nothing": "",
    "standard library": "import collections, hashlib, random, re; assert re.match('a', 'a')",
    "installed packages": "import sentencepiece",
    "threads": "import threading; t = threading.Thread(target=print); t.start(); t.join()",
    "children": "import subprocess; assert subprocess.check_output(['echo', 'x']) == b'x\\n'",
    "multiprocessing": "import multiprocessing as m; assert m.get_context('fork').Pool(2).map(abs, [-1]) == [1]",
    "temporary files": "import tempfile; f = tempfile.TemporaryFile(); f.write(b'x')",
    "dataclasses": "import dataclasses\n@dataclasses.dataclass\nclass A:\n    x: int\nassert A(1) == A(1)",
    "not the main module": "if __name__ == '__main__':\n    raise ValueError",
    "nothing to read": "import sys; assert sys.stdin.read() == ''",
    "patched builtins": "import os; os._exit = os.write = os.kill = print = None",
    "only its own descriptors": "import os\nfor fd in range(4, 64):\n    try:\n        os.fstat(fd)\n"
    "    except OSError:\n        continue\n    raise ValueError(fd)",
    "a trap at its end": "import atexit; atexit.register(lambda: 1 / 0)",
}
FAILS = {
    "assertion": "assert 1 == 2",
    "syntax": "def f(:",
    "null byte": "x = '\0'",
    "lone surrogate": "x = '\ud800'",
    "sys.exit(0)": "import sys; sys.exit(0)",
    "SystemExit": "raise SystemExit",
    "os._exit(0)": "import os; os._exit(0)",
    "says that it passed": "import os, sys; print('passed', flush=True); os._exit(0)",
    "patches and leaves": "import builtins, os; builtins.exec = builtins.compile = print; os._exit(0)",
    "writes everywhere": "import os\nfor fd in range(1, 4):\n    os.write(fd, b'passed' * 9)\nos._exit(0)",
    "closes everything": "import os; os.closerange(0, 100)",
    "swaps descriptors": "import os; os.dup2(os.open('/dev/null', os.O_WRONLY), 3)",
    "a child that leaves": "import os\nif os.fork():\n    os.wait()\n    os._exit(1)",
    "a trap in a thread": "import os, threading; threading.Thread(target=os._exit, args=[0]).start(); 1 / 0",
    "asks": "input()",
    "deep recursion": "f = lambda: f()\nf()",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "becomes another program": "import os; os.execv('/bin/true', ['true'])",
}


@pytest.mark.parametrize("name", PASSES)
def test_passes(name: str) -> None:
    outcome = run(PASSES[name], LIMITS)
    assert outcome.status is Status.passed, outcome


@pytest.mark.parametrize("name", FAILS)
def test_fails(name: str) -> None:
    outcome = run(FAILS[name], LIMITS)
    assert outcome.status is Status.failed, outcome


@pytest.mark.parametrize(
    ("program", "limits", "status"),
    [
        ("while True: pass", {"cpu_seconds": 1}, Status.timed_out),
        ("try:\n    while True: pass\nexcept BaseException:\n    pass", {"cpu_seconds": 1}, Status.timed_out),
        ("import time; time.sleep(600)", {"wall_seconds": 0.5}, Status.timed_out),
        ("import os\nwhile True: os.fork()", {"wall_seconds": 2.0}, Status.failed),
        (
            "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
            {"wall_seconds": 1.0},
            Status.timed_out,
        ),
        ("x = bytearray(1 << 40)", {}, Status.memory),
        ("x = []\nwhile True: x.append(bytearray(1 << 20))", {}, Status.memory),
        ("while True: print('x' * 1000)", {}, Status.output),
        ("import sys\nwhile True: sys.stderr.write('x' * 1000)", {}, Status.output),
        ("import ctypes; ctypes.string_at(0)", {}, Status.killed),
        ("import os; os.kill(os.getpid(), 15)", {}, Status.killed),
        ("import sys\nsys.setrecursionlimit(1 << 30)\nf = lambda x: [*map(f, [x])]\nf(1)", {}, Status.killed),
    ],
)
def test_limits(program: str, limits: dict[str, float], status: Status) -> None:
    outcome = run(program, replace(LIMITS, **limits))
    assert outcome.status is status, outcome


CHILDREN = """
import os, time
for _ in range(6):
    if os.fork() == 0:
        x = bytearray(60 << 20)
        time.sleep(1)
        os._exit(0)
for _ in range(6):
    os.wait()
"""


@pytest.mark.parametrize(("mebibytes", "status"), [(200, Status.memory), (1000, Status.passed)])
def test_memory_of_all_processes_counts(mebibytes: int, status: Status) -> None:
    assert run(CHILDREN, replace(LIMITS, memory_bytes=mebibytes * MiB)).status is status


def test_processes_are_counted() -> None:
    fork = (
        "import os, time\nn = 1\ntry:\n    while n < 50:\n        if os.fork() == 0: time.sleep(60)\n        n += 1\n"
    )
    assert run(fork + "except OSError:\n    print(n)", replace(LIMITS, processes=7)).stdout == "7\n"


def test_the_disk_is_full_at_its_limit() -> None:
    fill = """
        n = 0
        try:
            for i in range(20):
                with open(f"/tmp/{i}", "wb", buffering=0) as f:
                    for _ in range(4): n += f.write(bytes(1 << 20))
        except OSError as error:
            print(n >> 20, error.errno)
    """
    outcome = run("if 1:" + fill, replace(LIMITS, disk_bytes=10 * MiB))
    assert outcome.stdout == "9 28\n" or outcome.stdout == "10 28\n", outcome


def test_tail_of_what_it_wrote() -> None:
    outcome = run("print('x' * 10_000 + 'end')\nraise ValueError('why')", LIMITS)
    assert outcome.stdout.endswith("xend\n")
    assert len(outcome.stdout) == 2000
    assert 'File "program.py", line 2' in outcome.stderr
    assert outcome.reason == "failed: ValueError: why"


def test_several_at_a_time_in_order() -> None:
    outcomes = run_all([f"import time; time.sleep({0.2 - i / 50}); print({i})" for i in range(8)], LIMITS, workers=4)
    assert [outcome.stdout for outcome in outcomes] == [f"{i}\n" for i in range(8)]


def test_a_sandbox_ends_with_its_parent() -> None:
    child = f"import ctypes, time; ctypes.CDLL(None).prctl(15, b'orphan-{os.getpid()}'); time.sleep(60)"
    parent = "from eval.sandbox.run import run; from eval.sandbox.limits import Limits\n"
    parent += f"run({child!r}, Limits(wall_seconds=60))"
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=REPOSITORY)

    def alive() -> list[str]:
        names = [path.read_text().strip() for path in Path("/proc").glob("[0-9]*/comm") if path.exists()]
        return [name for name in names if name == f"orphan-{os.getpid()}"]

    def wait_for(state: bool) -> bool:
        deadline = time.monotonic() + 30
        while bool(alive()) is not state and time.monotonic() < deadline:
            time.sleep(0.05)
        return bool(alive()) is state

    assert wait_for(True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert wait_for(False)


def test_refused_where_nothing_isolates(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(program: str, limits: Limits, way: Way) -> None:
        raise SandboxError(f"the sandbox ({way}) failed: unshare: Operation not permitted")

    monkeypatch.setattr(sandbox, "run", cannot)
    with pytest.raises(SandboxError, match=r"unshare: Operation not permitted.*; install bubblewrap") as error:
        available.__wrapped__()
    assert "\n" not in str(error.value)


def test_the_probe_fails_unprotected() -> None:
    done = subprocess.run([sys.executable, "-c", sandbox._PROBE], capture_output=True)
    assert done.returncode != 0
    assert available() in Way


@pytest.mark.parametrize("change", [{"cpu_seconds": 0}, {"memory_bytes": 1}, {"processes": 0}])
def test_impossible_limits(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        Limits(**change)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_jump_of_the_filter_lands_inside(machine: str) -> None:
    lines = instructions(machine)
    for at, (code, yes, no, _) in enumerate(lines):
        assert at + 1 + max(yes, no) < len(lines) or code == 0x06
    assert lines[-1][0] == 0x06
