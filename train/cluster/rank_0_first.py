"""What rank 0 does alone at a run's start, before any other rank looks at the run folder."""

import contextlib
from collections.abc import Callable
from datetime import timedelta

from torch.distributed import DistError
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from train.errors import TrainingError

_RESULT, _COUNT, _SEEN = "start/result", "start/count", "start/seen"
_STORE: list[Store] = []
"""Keeps rank 0's store for the process group that is made after it."""


def rank_0_first(work: Callable[[], int], rank: int, world_size: int) -> int:
    """Rank 0's result of `work`, on every rank; the others wait for it, however long it takes.

    The ranks meet in the store that their process group will use, so that nobody depends on what a network file system
    shows of a file just written. Raises what `work` raises on rank 0, and TrainingError on the others.
    """
    if world_size == 1:
        return work()
    store, *_ = next(rendezvous("env://", timeout=timedelta(days=1)))
    _STORE[:] = [store]
    if rank > 0:
        return _result(store, world_size)
    answer = "failed"
    try:
        result = work()
        answer = str(result)
    finally:
        store.set(_RESULT, answer)
        with contextlib.suppress(DistError):  # the store may be this process's, and end with it
            store.wait([_SEEN], timedelta(seconds=30))
    return result


def _result(store: Store, world_size: int) -> int:
    try:
        store.wait([_RESULT], timedelta(days=30))
        answer = store.get(_RESULT).decode()
        if store.add(_COUNT, 1) == world_size - 1:
            store.set(_SEEN, "")
    except DistError as error:
        raise TrainingError("rank 0 has ended before the start") from error
    if answer == "failed":
        raise TrainingError("rank 0 could not start")
    return int(answer)
