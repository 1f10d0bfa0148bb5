"""Ranks and the torchrun that has started them. Imports nothing that takes time: it is called before all else."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # of prctl.h


def die_with_launcher() -> None:
    """Have this rank killed when its torchrun is (kill -9, out of memory), and end it when that has happened already.

    Torchrun gives each rank a session of its own, so that nothing else would tell it: it would train on by itself, or
    wait for the dead torchrun's store, and hold the run folder against whoever starts again. Linux alone.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or sys.platform != "linux":
        return
    launcher = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher or _adopted(launcher):
        print("torchrun has died; so does this rank", file=sys.stderr)
        os._exit(1)


def _adopted(parent: int) -> bool:
    """Whether the parent process is not the launcher, but who takes in orphans: init, systemd, slurmstepd.

    Torchrun is Python, and starts a rank as the leader of a session; a script between the two may be anything.
    """
    if os.getsid(0) != os.getpid():
        return False
    try:
        return "python" not in os.path.basename(os.readlink(f"/proc/{parent}/exe"))
    except OSError:  # another user's, or gone
        return True
