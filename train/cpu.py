"""What torchtitan 0.3 needs to run without an accelerator. Applied only where none is found.

Two further points live where they apply: models/parallelize.py (gloo cannot pre-multiply in a reduction) and
train/titan.py (no CUDA graphs, the `partial_dtensor` backend).
"""

import ctypes
import importlib
import os
import sys
import types

import torch


def prepare_torchtitan() -> None:
    """Make torchtitan use the CPU when there is no accelerator. Safe to call more than once."""
    if not hasattr(torch.distributed, "set_timeout"):
        # Newer than torch 2.13, on GPUs too: torchtitan shortens the collectives' timeout with it after the first step.
        torch.distributed.set_timeout = lambda timeout, group=None: None  # type: ignore[attr-defined]
    if torch.accelerator.is_available():
        return
    keep_freed_memory()
    module = _cpu_device_module()
    importlib.import_module("torchtitan.tools.utils")
    # Modules that were imported before hold their own references.
    for name in [n for n in sys.modules if n.startswith("torchtitan")]:
        if hasattr(sys.modules[name], "device_type"):
            sys.modules[name].device_type = "cpu"  # type: ignore[attr-defined]
        if hasattr(sys.modules[name], "device_module"):
            sys.modules[name].device_module = module  # type: ignore[attr-defined]


def keep_freed_memory() -> None:
    """Have glibc reuse the memory of freed tensors rather than return it to the system and fault it in again.

    Steps take 5 to 10 % less time, and the time varies less; the most memory in use stays as it is.
    """
    m_trim_threshold, m_mmap_max = -1, -4  # of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries have none
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)


def _cpu_device_module() -> types.ModuleType:
    """torch.cpu plus the calls that torchtitan makes of a device module."""
    module = types.ModuleType("torch.cpu with what torchtitan asks for")
    module.__dict__.update(torch.cpu.__dict__)
    properties = types.SimpleNamespace(
        name="cpu", total_memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    )
    module.__dict__.update(
        set_device=lambda device: None,
        device_count=lambda: 1,
        current_device=lambda: 0,
        get_device_name=lambda device=None: "cpu",
        get_device_properties=lambda device=None: properties,
        reset_peak_memory_stats=lambda device=None: None,
        empty_cache=lambda: None,
        memory_stats=lambda device=None: {},
    )
    return module
