"""Run a program that nobody has read: `run(program, Limits())`."""

import functools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from eval.sandbox.bubblewrap import wrapped
from eval.sandbox.limits import Limits, Outcome, SandboxError, Status
from eval.sandbox.root import visible
from eval.sandbox.seccomp import MACHINES
from eval.sandbox.way import Way

_ROOT = Path(__file__).parent.parent.parent
_GRACE = 20.0  # seconds beyond the program's own, after which the sandbox itself hangs
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",  # a library with a thread for every core would meet the limit on processes
    "OPENBLAS_NUM_THREADS": "1",
}
# Runs to its end only where it is isolated.
_PROBE = f"""
import errno, os, socket
assert os.getpid() < 10 and os.geteuid() != 0
assert not os.access({str(_ROOT)!r}, os.W_OK)
for family, expected in ((socket.AF_INET, errno.ENETUNREACH), (socket.AF_NETLINK, errno.EAFNOSUPPORT)):
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            s.connect(("192.0.2.1", 9))
    except OSError as error:
        assert error.errno == expected, error
    else:
        raise AssertionError("a network")
for path in ("/", "/usr", "/dev"):
    try:
        os.mkdir(path + "/probe")
    except OSError as error:
        assert error.errno == errno.EROFS, error
    else:
        raise AssertionError(path + " can be written")
"""


def run(program: str, limits: Limits, way: Way | None = None) -> Outcome:
    """Run Python source to its end, or as far as it gets, with the standard library and the installed packages.

    Returns when no process of it is left. Threads may call it at the same time.

    Args:
        program: the source, whose `__name__` is "program".
        limits: what it may use.
        way: how to isolate it; None: as available() says.

    Raises:
        SandboxError: where programs cannot be isolated, or the sandbox fails.
    """
    way = way or available()
    order = {"way": way, "limits": asdict(limits), "shown": visible(), "program": program}
    command = _interpreter(way, limits)
    try:
        said = _said(command, json.dumps(order).encode() + b"\n", limits.wall_seconds + _GRACE)
    except OSError as error:
        raise SandboxError(f"the sandbox ({way}) cannot be started: {error}") from None
    try:
        report = json.loads(said)
    except ValueError:
        last = said.decode(errors="replace").strip().splitlines()[-1:] or ["no report"]
        raise SandboxError(f"the sandbox ({way}) failed: {last[0]}") from None
    if "error" in report:
        raise SandboxError(f"the sandbox ({way}) failed: {report['error']}")
    return Outcome(**report | {"status": Status(report["status"])})


def run_all(programs: Iterable[str], limits: Limits, workers: int | None = None) -> Iterator[Outcome]:
    """Run several at a time (None: one per core); the outcomes in the programs' order."""
    available()
    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        try:
            yield from pool.map(lambda program: run(program, limits), programs)
        finally:
            pool.shutdown(cancel_futures=True)


@functools.cache
def available() -> Way:
    """The first way that isolates a program on this machine; found by trying, once.

    Raises:
        SandboxError: there is none; says why, and the remedy.
    """
    if sys.platform != "linux" or os.uname().machine not in MACHINES:
        raise SandboxError(
            f"programs are run on Linux ({' or '.join(MACHINES)}) alone; use a virtual machine or container"
        )
    ways = [Way.root, Way.user] if os.geteuid() == 0 else [Way.user, Way.bubblewrap]
    why = []
    for way in ways:
        try:
            outcome = run(_PROBE, Limits(cpu_seconds=20, wall_seconds=60), way)
        except SandboxError as error:
            why.append(str(error))
            continue
        if outcome.status is Status.passed:
            return way
        why.append(f"{way}: {outcome.reason}")
    raise SandboxError(f"no program can be isolated here ({'; '.join(why)}); {_REMEDY}, or execute on another machine")


_REMEDY = (
    "install bubblewrap, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1,"
    " kernel.apparmor_restrict_unprivileged_userns=0); in a container, start it with"
    " --cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
)


def _interpreter(way: Way, limits: Limits) -> list[str]:
    paths = f"import sys; sys.path.insert(0, {str(_ROOT)!r})"
    code = f"{paths}; from eval.sandbox.jail import main; del sys.path[0]; main()"
    command = [os.path.realpath(sys.executable), "-I", "-S", "-c", code]
    if way is not Way.bubblewrap:
        return command
    if (program := shutil.which("bwrap")) is None:
        raise SandboxError("bubblewrap is not installed")
    return wrapped(program, command, visible(), str(_ROOT / "eval"), limits.disk_bytes)


def _said(command: list[str], order: bytes, seconds: float) -> bytes:
    """What the sandbox answers to an order; nothing of it is left then."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_ENVIRONMENT,
        cwd="/",
        start_new_session=True,
    ) as process:
        try:
            return _converse(process, order, seconds)
        finally:
            process.kill()  # takes everything with it; mostly it has ended


def _converse(process: subprocess.Popen[bytes], order: bytes, seconds: float) -> bytes:
    """Send the order and read the report to its end; standard input stays open, which keeps the sandbox alive."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(order)
        process.stdin.flush()
    except BrokenPipeError:  # its report says why
        pass
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    deadline = time.monotonic() + seconds
    said = b""
    while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        data = os.read(process.stdout.fileno(), 1 << 16)
        said += data
        if not data:
            return said
    return b"it did not answer in time"
