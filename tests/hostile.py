"""Programs that mean harm. What they aim at is in victims.py."""

from dataclasses import dataclass
from enum import StrEnum


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
    "forks": Hostile("""
n = 1
try:
    while n < 30:
        if os.fork() == 0:
            time.sleep(1)
            os._exit(0)
        n += 1
except OSError:
    pass
if n > 16:
    print("HARM", n, "processes")
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

# What takes too much of something, and how it ends.
GREEDY = {
    "while True: pass": "timed_out",
    "import time; time.sleep(600)": "timed_out",
    "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass": "timed_out",
    "import os, time\nfor _ in range(8): os.fork() or [bytearray(60 << 20), time.sleep(60)]\nos.wait()": "memory",
    "x = bytearray(1 << 40)": "memory",
    "while True: print('x' * 1000)": "output",
}
