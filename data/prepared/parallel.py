"""Chunks tokenized by several processes, in order."""

import gc
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice

from conf.machine import usable_cores
from data.config import DataError
from data.prepared.encoding import EncodedChunk, Encoder
from data.sources.chunks import Chunk

_encoder: Encoder | None = None  # of a process that tokenizes


def _start(encoder: Encoder) -> None:
    global _encoder
    _encoder = encoder
    gc.disable()  # as in Encoder, and what was loaded before the fork would be walked through again and again
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer


def _encode(chunk: Chunk) -> EncodedChunk:
    assert _encoder is not None
    return _encoder(chunk)


def n_processes(workers: int | None) -> int:
    """Number of worker processes: `workers`, or one per available core where it is None."""
    return workers or usable_cores()


def encoded_chunks(chunks: Iterable[Chunk], encoder: Encoder, workers: int | None) -> Iterator[EncodedChunk]:
    """The chunks tokenized, in their order, by so many processes (None: one per core; 1: in this one)."""
    workers = n_processes(workers)
    chunks = iter(chunks)
    ahead = list(islice(chunks, 2))
    if workers == 1 or len(ahead) < 2:
        yield from map(encoder, chain(ahead, chunks))
        return
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # processes take the cores
    # Forked: a fresh process would import the program again, torch and all, before its first document.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _start, (encoder,)) as pool:
        pending: deque[Future[EncodedChunk]] = deque()
        try:
            for chunk in chain(ahead, chunks):
                pending.append(pool.submit(_encode, chunk))
                if len(pending) >= 3 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool:
            raise DataError("a process that tokenizes was killed (out of memory?); try fewer workers") from None
        finally:
            # Waited for: a pool that is still being taken down when Python ends writes a traceback now and then.
            pool.shutdown(cancel_futures=True)
