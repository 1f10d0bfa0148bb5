"""Decoding one model on several ranks: under torchrun all make the same passes, and rank 0 alone reads and prints."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TypeVar

import torch
import torch.distributed as dist

from models.part import Part

T = TypeVar("T")


def world_size() -> int:
    """How many ranks torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def ranks(device: torch.device) -> Iterator[Part]:
    """The part of a model that this rank has. What ranks other than 0 print is thrown away."""
    if world_size() == 1:
        yield Part()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    part = Part(dist.group.WORLD)
    try:
        if part.rank == 0:
            yield part
        else:
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield part
    finally:
        dist.destroy_process_group()


def from_first(part: Part, read: Callable[[], T]) -> T:
    """What rank 0 reads, on all ranks: a prompt of standard input, which is there once."""
    if part.group is None:
        return read()
    found = [read() if part.rank == 0 else None]
    dist.broadcast_object_list(found, src=0, group=part.group)
    return found[0]  # type: ignore[return-value]
