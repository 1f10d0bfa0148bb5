"""What the device is, and what it can do: the rates that everything else is a share of."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from conf.provenance import code_revision, processor
from train.cost.device import synchronise

TIMES = 10


def probe(device: str, sizes: str) -> dict[str, Any]:
    """Name, versions, bytes per second of a copy (read and written), FLOPs per second of a bf16 matrix product."""
    small = sizes == "tiny"
    n_bytes, width = (1 << 26, 512) if small else (1 << 32, 8192)
    copy, product = _copy_seconds(device, n_bytes), _product_seconds(device, width)
    cuda = device == "cuda"
    return {
        "hardware": torch.cuda.get_device_name() if cuda else processor(),
        "n_gpus": torch.cuda.device_count(),
        "memory_gib": torch.cuda.get_device_properties(0).total_memory / 2**30 if cuda else None,
        "capability": ".".join(map(str, torch.cuda.get_device_capability())) if cuda else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if cuda else None,  # type: ignore[no-untyped-call]
        "threads": torch.get_num_threads(),
        "copy_bytes_per_second": 2 * n_bytes / copy,
        "bf16_flops_per_second": 2 * width**3 / product,
        "commit": code_revision(),
    }


def _copy_seconds(device: str, n_bytes: int) -> float:
    source = torch.empty(n_bytes // 4, device=device).normal_()
    target = torch.empty_like(source)
    return _seconds(device, lambda: target.copy_(source))


def _product_seconds(device: str, width: int) -> float:
    a, b = (torch.randn(width, width, device=device).bfloat16() for _ in range(2))
    return _seconds(device, lambda: torch.mm(a, b))


def _seconds(device: str, call: Callable[[], object]) -> float:
    """Median of some calls, after three that are not counted."""
    found = []
    for i in range(TIMES + 3):
        synchronise(device)
        begun = time.perf_counter()
        call()
        synchronise(device)
        if i >= 3:
            found.append(time.perf_counter() - begun)
    return median(found)
