"""Ranks and the torchrun that has started them."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # of prctl.h


def die_with_launcher() -> None:
    """Have this rank killed when its torchrun is (kill -9, out of memory).

    Torchrun gives each rank a session of its own, so that nothing else would tell it: it would train on by itself, or
    wait for the dead torchrun's store, and hold the run folder against whoever starts again. Linux alone.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
