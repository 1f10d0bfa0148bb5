"""The configuration of what a run has to do with its cluster."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class ClusterConfig:
    """Signals, other processes and ranks that do not answer."""

    save_seconds: float = 240.0
    """Seconds from SIGTERM or SIGUSR1 to the end of the process, in which it ends its step, does one more and saves.
    Who sends the signal must wait longer before a kill: torchrun --shutdown-timeout, sbatch --signal=B:USR1@seconds."""
    timeout_seconds: float = 300.0
    """Seconds without a sign of life from a rank after which the run is given up; a collective that waits for one that
    lives, from the first one on, ends 30 s later. The checkpoint is kept, and the same command continues."""
    lock_seconds: float = 120.0
    """Seconds to wait for another process that holds the run folder; NFS holds a dead node's lock for 90."""
    needs_gpu: bool | None = None
    """Whether a run without a GPU is refused; null: if its model has 500 million parameters or more."""

    def __post_init__(self) -> None:
        for key, least in (("save_seconds", 1), ("timeout_seconds", 1), ("lock_seconds", 0)):
            value = getattr(self, key)
            if not least <= value <= 10**6:  # also refuses nan
                raise ValueError(f"cluster.{key}={value}: must lie in {least}..1000000")
