"""How much of this machine a process may use."""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup/memory.max")


def total_memory() -> int:
    """Bytes of memory, or of a container's or job's part of it."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(physical, int(CGROUP.read_text()))
    except (OSError, ValueError):  # ValueError: "max", no limit
        return physical


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
