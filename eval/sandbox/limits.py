"""What a program may use, and what became of it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

MiB = 1 << 20


class SandboxError(RuntimeError):
    """The sandbox itself cannot be had or has failed; says what to do. Never the program's fault.

    It ends a command like conf.errors.UserError, but does not derive from it: the jail loads this package alone.
    """

    exit_status: ClassVar[int] = 2


class Status(StrEnum):
    """What became of a program."""

    passed = "passed"
    """It ran to its end: no exception, no exit of its own."""
    failed = "failed"
    """An exception, or it left by sys.exit or os._exit, with whatever status."""
    timed_out = "timed_out"
    """It used up its processor or wall time."""
    memory = "memory"
    """It used up its memory, or ended by a MemoryError."""
    output = "output"
    """It wrote more than it may."""
    killed = "killed"
    """A signal ended it, by a segmentation fault for instance."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a program may use. A process more than `processes`, or a file too large, is an error inside it."""

    cpu_seconds: int = 3
    """Processor time that each of the program's processes may use, in seconds."""
    wall_seconds: float = 10.0
    """From its start to its end, whatever it waits for."""
    memory_bytes: int = 1024 * MiB
    """Resident, of all its processes together (looked at every 20 ms), and the address space of each."""
    disk_bytes: int = 64 * MiB
    """All its files together; they lie in memory, beside memory_bytes."""
    output_bytes: int = 1 * MiB
    """Standard output and standard error together."""
    processes: int = 16
    """At any time, threads counted."""
    open_files: int = 64
    """Files that each process may have open."""

    def __post_init__(self) -> None:
        """Refuse what no interpreter could start with."""
        for name, least in LEAST.items():
            if not getattr(self, name) >= least:  # so that nan is refused
                raise ValueError(f"{name}={getattr(self, name)}: must be at least {least}")


LEAST = {
    "cpu_seconds": 1,
    "wall_seconds": 0.1,
    "memory_bytes": 64 * MiB,
    "disk_bytes": 4096,
    "output_bytes": 0,
    "processes": 1,
    "open_files": 8,
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a program, and how."""

    status: Status
    exit_code: int
    """Exit status of its first process; -n means that signal n ended it."""
    seconds: float
    """Wall time, without the making of the sandbox."""
    stdout: str
    """The last 2,000 bytes."""
    stderr: str
    """The last 2,000 bytes of standard error, where a traceback ends."""

    @property
    def reason(self) -> str:
        """The status, and for a failure the last line of the traceback."""
        lines = self.stderr.strip().splitlines()
        return f"{self.status}: {lines[-1]}" if self.status is Status.failed and lines else str(self.status)
