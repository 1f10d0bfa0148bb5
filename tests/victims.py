"""What hostile programs aim at, and how to see that they did harm: also `python tests/victims.py [WAY]`.

The standard library and eval.sandbox alone, so that any interpreter runs it, as any user.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hostile import GREEDY, HOSTILE, PREAMBLE, Hostile

from eval.sandbox.limits import Limits, MiB
from eval.sandbox.run import run
from eval.sandbox.way import Way

REPOSITORY = Path(__file__).parent.parent
SECRET = "a-secret-of-the-parent"
DAEMON = f"daemon-{os.getpid()}"  # of this process: others may run the same tests
LIMITS = Limits(cpu_seconds=5, wall_seconds=20, memory_bytes=256 * MiB, processes=16)


class Victims:
    """What a hostile program is pointed at."""

    def __enter__(self) -> "Victims":
        self.folder = Path(tempfile.mkdtemp())
        self.folder.chmod(0o777)
        self.file = self.folder / "victim"
        name = self.folder.name
        places = (self.folder, Path("/tmp"), Path("/dev/shm"), Path.home(), REPOSITORY, Path("/var/tmp"))
        self.targets = [place / f"hostile-{name}" for place in places]
        self.sockets = contextlib.ExitStack()
        self.listeners: list[socket.socket] = []
        self.tcp, self.udp = self._bound(socket.AF_INET, True), self._bound(socket.AF_INET, False)
        self.beside = Path(tempfile.mkdtemp())  # the folder itself is deleted
        self.unix, self.abstract = str(self.beside / "socket"), f"\0hostile-{name}"
        self._bound(socket.AF_UNIX, True, self.unix)
        self._bound(socket.AF_UNIX, True, self.abstract)
        self.process = subprocess.Popen(["sleep", "600"])
        self.heal()
        return self

    def _bound(self, family: int, stream: bool, address: str | tuple[str, int] = ("127.0.0.1", 0)) -> int:
        s = self.sockets.enter_context(socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM))
        s.bind(address)
        s.setblocking(False)
        self.listeners.append(s)
        if stream:
            s.listen(50)
        return s.getsockname()[1] if family == socket.AF_INET else 0

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.sockets.close()
        shutil.rmtree(self.folder)
        shutil.rmtree(self.beside)

    def heal(self) -> None:
        """As before the last program."""
        self.folder.mkdir(exist_ok=True)
        self.file.write_text("intact")
        self.file.chmod(0o666)
        for target in self.targets:
            with contextlib.suppress(OSError):
                target.unlink()
        if self.process.poll() is not None:
            self.process = subprocess.Popen(["sleep", "600"])
        for pid in daemons():
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself meanwhile
                os.kill(pid, 9)

    def program(self, body: str) -> str:
        """The body, after what it aims at."""
        aims = {
            "VICTIM": str(self.file),
            "FOLDER": str(self.folder),
            "TARGETS": [str(target) for target in self.targets],
            "REPOSITORY": str(REPOSITORY),
            "TCP": self.tcp,
            "UDP": self.udp,
            "UNIX": self.unix,
            "ABSTRACT": self.abstract,
            "PROCESS": self.process.pid,
            "PARENT": os.getpid(),
            "SECRET": SECRET,
            "DAEMON": DAEMON,
        }
        return PREAMBLE + "".join(f"{name} = {value!r}\n" for name, value in aims.items()) + body

    def harms(self, hostile: Hostile, execute: Callable[[str], str]) -> list[str]:
        """What a program does that `execute` runs; the victims are healed afterwards."""
        said = execute(self.program(hostile.body))
        found = [line for line in said.splitlines() if line.startswith("HARM")]
        if not self.file.exists() or self.file.read_text() != "intact":
            found.append("the victim's file")
        found += [f"wrote {target}" for target in self.targets if target.exists()]
        if self.process.poll() is not None:
            found.append("killed")
        found += [f"sent to {listener.getsockname()}" for listener in self.listeners if heard(listener)]
        found += [f"left process {pid}" for pid in daemons()]
        self.heal()
        return found


def heard(listener: socket.socket) -> bool:
    """Whether anything has come since the last time."""
    try:
        if listener.type == socket.SOCK_STREAM:
            listener.accept()[0].close()
        else:
            listener.recv(100)
    except BlockingIOError:
        return False
    return True


def daemons() -> list[int]:
    """Processes that have the daemon's name."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdecimal() and (folder / "comm").read_text().strip() == DAEMON:
                found.append(int(folder.name))
    return found


def unprotected(program: str) -> str:
    """Standard output of a program run as it is."""
    environment = os.environ | {"OF_THE_PARENT": SECRET}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, cwd="/tmp"
    )
    return done.stdout


def sandboxed(way: Way | None = None) -> Callable[[str], str]:
    """The same in the sandbox; what fails inside other than by the harm it wants is an error."""

    def execute(program: str) -> str:
        outcome = run(program, LIMITS, way)
        assert outcome.status == "passed", outcome
        return outcome.stdout

    return execute


def main() -> None:
    """Run everything once; exits with 1 when there was harm."""
    os.environ["OF_THE_PARENT"] = SECRET
    way = Way(sys.argv[1]) if len(sys.argv) > 1 else None
    bad = 0
    with Victims() as victims:
        for name, hostile in HOSTILE.items():
            if harms := victims.harms(hostile, sandboxed(way)):
                bad += 1
                print(name, harms)
    for program, status in GREEDY.items():
        outcome = run(program, replace(LIMITS, cpu_seconds=1, wall_seconds=1.5), way)
        if outcome.status != status:
            bad += 1
            print(program, outcome)
    print(f"{len(HOSTILE) + len(GREEDY)} programs, {bad} did harm")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
