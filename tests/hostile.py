"""Programs that mean harm, what they would harm, and how to see that they did: also `python tests/hostile.py [WAY]`.

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
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from eval.sandbox.limits import Limits, MiB
from eval.sandbox.run import run
from eval.sandbox.way import Way

REPOSITORY = Path(__file__).parent.parent
SECRET = "a-secret-of-the-parent"
DAEMON = "hostile-daemon"
LIMITS = Limits(cpu_seconds=5, wall_seconds=20, memory_bytes=256 * MiB, processes=16)


class Control(StrEnum):
    """For whom the same program does its harm without the sandbox; shown by running it so."""

    anybody = "anybody"
    root = "root"
    nobody = "nobody"
    """It would hit the machine that tests; not tried."""


@dataclass(frozen=True)
class Hostile:
    """A program: what it manages, it prints after HARM, or the victims show it."""

    body: str
    control: Control = Control.anybody


PREAMBLE = """
import ctypes, errno, os, resource, shutil, signal, socket, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
machine = ("x86_64", "aarch64").index(os.uname().machine)

def attempt(what, function, *arguments):
    # Harm, unless it raises or gives -1.
    try:
        result = function(*arguments)
    except (OSError, ValueError, LookupError, ImportError, AttributeError):
        return
    if not (isinstance(result, int) and result == -1):
        print("HARM", what, flush=True)

def call(numbers, *arguments):
    return libc.syscall(ctypes.c_long(numbers[machine]), *(ctypes.c_long(a) for a in arguments))

def send(family, kind, address):
    try:
        with socket.socket(family, kind) as s:
            s.settimeout(5)
            s.connect(address)
            s.send(b"harm")
    except OSError:
        pass
"""

HOSTILE = {
    "deletes": Hostile("""
for path in (VICTIM, FOLDER):
    attempt("truncate", os.truncate, path, 0)
    attempt("remove", os.remove, path)
    attempt("rmtree", shutil.rmtree, path)
"""),
    "writes_elsewhere": Hostile("""
for path in TARGETS:
    try:
        open(path, "w").write("harm")
    except OSError:
        pass
"""),
    "writes_by_a_link": Hostile("""
link = "/tmp/link-%d" % os.getpid()
os.symlink(VICTIM, link)
try:
    open(link, "r+").write("harm")
except OSError:
    pass
os.remove(link)
"""),
    "reads_files": Hostile("""
for path in (VICTIM, "/etc/passwd", REPOSITORY + "/pyproject.toml"):
    attempt("read " + path, open, path)
"""),
    "tcp": Hostile('send(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", TCP))'),
    "udp_as_dns": Hostile('send(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", UDP))'),
    "unix_socket": Hostile("send(socket.AF_UNIX, socket.SOCK_STREAM, UNIX)"),
    "abstract_socket": Hostile("send(socket.AF_UNIX, socket.SOCK_STREAM, ABSTRACT)"),
    "netlink": Hostile('attempt("socket", socket.socket, socket.AF_NETLINK, socket.SOCK_RAW)'),
    "packets": Hostile('attempt("socket", socket.socket, socket.AF_PACKET, socket.SOCK_RAW)', Control.root),
    "vsock": Hostile('attempt("socket", socket.socket, socket.AF_VSOCK, socket.SOCK_STREAM)', Control.nobody),
    "names": Hostile(
        """
try:
    socket.getaddrinfo("example.com", 80)
    print("HARM resolved")
except socket.gaierror:
    pass
""",
        Control.nobody,
    ),
    "kills": Hostile('attempt("kill", os.kill, PROCESS, 9)'),
    "kills_by_descriptor": Hostile('attempt("kill", lambda: signal.pidfd_send_signal(os.pidfd_open(PROCESS), 9))'),
    "kills_all": Hostile(
        """
for target in (-1, 1, os.getppid(), PARENT):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(target, number)
        except OSError:
            pass
""",
        Control.nobody,
    ),
    "environment": Hostile("""
if SECRET in os.environ.values():
    print("HARM os.environ")
for pid in ("self", os.getppid(), PARENT, 1):
    try:
        if SECRET in open(f"/proc/{pid}/environ", errors="replace").read():
            print("HARM environ of", pid)
    except OSError:
        pass
"""),
    "reads_memory": Hostile(
        """
attempt("mem", open, f"/proc/{PROCESS}/mem", "rb")
attempt("mem of 1", open, "/proc/1/mem", "rb")
""",
        Control.root,
    ),
    "traces": Hostile(
        """
for pid in (PROCESS, os.getppid()):
    attempt("seize", call, (101, 117), 0x4206, pid, 0, 0)  # unlike attach it does not stop who is traced
""",
        Control.root,
    ),
    "daemon": Hostile("""
ready, tell = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        libc.prctl(15, DAEMON.encode(), 0, 0, 0)
        for fd in (0, 1, 2, 3):
            try:
                os.close(fd)
            except OSError:
                pass
        os.write(tell, b"x")
        time.sleep(60)
    os._exit(0)
os.read(ready, 1)
"""),
    "raises_limits": Hostile("""
for kind in (resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE):
    attempt(f"limit {kind}", resource.setrlimit, kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""),
    "limits_of_others": Hostile(
        'attempt("prlimit", resource.prlimit, os.getppid(), resource.RLIMIT_CPU, (1, 1))', Control.nobody
    ),
    "becomes_root": Hostile(
        """
attempt("setuid", os.setuid, 0)
attempt("setgid", os.setgid, 0)
attempt("setgroups", os.setgroups, [0])
if os.geteuid() == 0:
    print("HARM root")
""",
        Control.root,
    ),
    "set_user_id": Hostile(
        """
if subprocess.run(["su", "-c", "true"], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0:
    print("HARM su")
""",
        Control.root,
    ),
    "devices": Hostile(
        'attempt("mknod", os.mknod, "/tmp/node-%d" % os.getpid(), 0o60666, os.makedev(254, 0))', Control.root
    ),
    "system_folders": Hostile(
        """
for path in ("/", "/usr", "/usr/bin", "/dev"):
    if os.access(path, os.W_OK):
        print("HARM can write", path)
""",
        Control.root,
    ),
    "kernel_settings": Hostile('attempt("open", os.open, "/proc/sys/kernel/core_pattern", os.O_WRONLY)', Control.root),
    "namespaces": Hostile(
        """
for flag in (0x20000, 0x10000000, 0x40000000, 0x20000000, 0x10020000):
    attempt(f"unshare {flag:x}", libc.unshare, flag)
""",
        Control.root,
    ),
    "namespaces_by_clone": Hostile(
        """
pid = call((56, 220), 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
if pid == 0:
    os._exit(0)
if pid > 0:
    print("HARM clone")
""",
        Control.root,
    ),
    "mounts": Hostile(
        """
attempt("mount", libc.mount, b"tmpfs", b"/tmp", b"tmpfs", 0, b"")
attempt("umount", libc.umount2, b"/tmp", 2)
attempt("chroot", os.chroot, "/tmp")
attempt("open_tree", call, (428, 428), -100, 0, 1)
""",
        Control.nobody,
    ),
    "uncounted_memory": Hostile("""
attempt("memfd", os.memfd_create, "x")
attempt("shmget", libc.shmget, 0, 1 << 20, 0o1600)
attempt("io_uring", call, (425, 425), 1, id(bytearray(200)))
attempt("keyring", call, (250, 219), 0, -3, 1)
"""),
}


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
    print(f"{len(HOSTILE)} programs, {bad} did harm")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
