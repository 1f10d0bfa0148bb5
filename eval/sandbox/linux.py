"""The system calls that Python's standard library does not offer."""

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 1 << 12, 1 << 14, 1 << 18
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
_MNT_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_SYS_MOUNT_SETATTR = 442  # the same number on every architecture; Linux 5.12
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(what: str, result: int) -> None:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Leave namespaces for new ones."""
    _checked("unshare", _libc.unshare(flags))


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Mount something at `target`."""
    words = [word.encode() for word in (source, target, kind)]
    _checked(f"mount {kind or source} at {target}", _libc.mount(*words, ctypes.c_ulong(flags), data.encode()))


def detach(target: str) -> None:
    """Take a mount away now, and free it when nobody uses it any more."""
    _checked(f"umount {target}", _libc.umount2(target.encode(), _MNT_DETACH))


def restrict_mount(target: str, attributes: int, *, recursive: bool) -> None:
    """Add attributes to a mount, and to those below it."""
    numbers = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    done = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        target.encode(),
        ctypes.c_uint(flags),
        ctypes.byref(numbers),
        ctypes.c_size_t(ctypes.sizeof(numbers)),
    )
    _checked(f"mount_setattr {target}", done)


def change_root(root: str) -> None:
    """Make `root`, a mount point, the root, and let go of the old one."""
    os.chdir(root)
    number = ctypes.c_long(_SYS_PIVOT_ROOT[os.uname().machine])
    _checked("pivot_root", _libc.syscall(number, b".", b"."))
    detach(".")  # the old root lies above the new one now
    os.chdir("/")


def prctl(option: int, value: int, argument: object = 0) -> None:
    """Change something about this process."""
    _checked(f"prctl {option}", _libc.prctl(option, ctypes.c_ulong(value), argument, 0, 0))


def set_dumpable(value: bool) -> None:
    """Whether processes of the same user may trace this one and own its files in /proc."""
    prctl(_PR_SET_DUMPABLE, int(value))


def die_with_parent() -> None:
    """SIGKILL when the parent ends."""
    prctl(_PR_SET_PDEATHSIG, 9)


def no_new_privileges() -> None:
    """No set-user-id program gives anything from here on."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """Keep none, in any set that execve would draw on."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _checked("capset", _libc.capset(ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)())))
