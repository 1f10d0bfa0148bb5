"""How much of this machine a process may use."""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup/memory.max")
CPU = Path("/proc/cpuinfo")


def cache_folder(name: str) -> Path:
    """Where files are kept that another process may use again and can do without."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "layerskip-pretrain" / name


def said_of_cpu(*names: str) -> list[str]:
    """The lines of Linux's description of the CPU that begin with one of the names, each once; none elsewhere."""
    try:
        return list(dict.fromkeys(line for line in CPU.read_text().splitlines() if line.startswith(names)))
    except OSError:
        return []


def total_memory() -> int:
    """Bytes of memory, or of a container's or job's part of it."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(physical, int(CGROUP.read_text()))
    except (OSError, ValueError):  # ValueError: "max", no limit
        return physical


def available_memory() -> int:
    """Bytes that can still be taken without swapping; `total_memory` where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kibibytes = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return total_memory()
    return min(total_memory(), 1024 * kibibytes)


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
