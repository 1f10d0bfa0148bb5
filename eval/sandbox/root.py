"""The file system a program sees: libraries and the interpreter, read-only, and an empty /tmp of its own."""

import os
import sys
import sysconfig
from typing import TypedDict

from eval.sandbox import linux

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/etc/ld.so.cache", "/etc/alternatives")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_STAGE = "/proc"  # where the new root is mounted before it becomes the root: a folder that always exists
LINKS = [("/tmp", "/dev/shm")]  # where multiprocessing keeps its semaphores


class Visible(TypedDict):
    """What of the machine a program sees."""

    binds: list[str]
    """Files and folders, read-only."""
    links: list[tuple[str, str]]
    """(target, path) of symbolic links."""
    packages: list[str]
    """Folders of installed packages, for sys.path."""


def visible() -> Visible:
    """The system's libraries, this interpreter and its installed packages; nothing of /etc, /home or the repository."""
    packages = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    binds: list[str] = []
    links = list(LINKS)
    for path in _SYSTEM:
        if os.path.islink(path):
            links.append((os.readlink(path), path))
        elif os.path.exists(path):
            binds.append(path)
    for path in (sys.base_prefix, os.path.realpath(sys.base_prefix), *packages):
        if os.path.isdir(path) and not any(os.path.commonpath([path, known]) == known for known in binds):
            binds.append(path)
    return {"binds": binds, "links": links, "packages": packages}


def make_root(shown: Visible, disk_bytes: int) -> int:
    """Make it the root of this process, the first of its pid namespace. Returns a descriptor of /proc, which is hidden.

    Raises OSError where the machine does not allow it.
    """
    os.umask(0o022)
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)  # nothing of what follows leaves this namespace
    plain = linux.MS_NOSUID | linux.MS_NODEV
    linux.mount("tmpfs", _STAGE, "tmpfs", plain, "size=1m,mode=755")
    for name in ("tmp", "proc", "dev"):
        os.mkdir(_STAGE + "/" + name)
    linux.mount("tmpfs", _STAGE + "/tmp", "tmpfs", plain, f"size={disk_bytes},nr_inodes=4096,mode=1777")
    linux.mount("proc", _STAGE + "/proc", "proc", plain | linux.MS_NOEXEC)
    proc = os.open(_STAGE + "/proc", os.O_RDONLY)
    linux.detach(_STAGE + "/proc")
    for path in (*shown["binds"], *filter(os.path.exists, DEVICES)):
        _bind(path, _STAGE + path)
    for target, path in shown["links"]:
        os.symlink(target, _STAGE + path)
    linux.restrict_mount(_STAGE, linux.MOUNT_ATTR_RDONLY, recursive=False)
    linux.change_root(_STAGE)
    return proc


def _bind(source: str, target: str) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "w"):
            pass
    linux.mount(source, target, "", linux.MS_BIND | linux.MS_REC)
    device = 0 if source in DEVICES else linux.MOUNT_ATTR_NODEV
    linux.restrict_mount(target, linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID | device, recursive=True)
