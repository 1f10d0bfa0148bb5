"""How many bytes of tensors live at a time, counted at every operation: real tensors and fake ones alike."""

import weakref
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveMemory(TorchDispatchMode):
    """Counts the storages that operations make or look at while it is entered: what was there before, once it is used.

    FSDP frees and fills the storages of gathered parameters without an operation, so sizes are read anew each time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self.peak = 0
        self.enabled = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(t, DTensor) for t in types):
            return NotImplemented  # the operations on its parts come through here
        out = func(*args, **(kwargs or {}))
        if not self.enabled:
            return out
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.storages[storage._cdata] = weakref.ref(storage)
        self.peak = max(self.peak, self.n_bytes())
        return out

    def n_bytes(self) -> int:
        """Bytes of all that is alive."""
        alive = {key: s for key, ref in self.storages.items() if (s := ref()) is not None}
        self.storages = {key: self.storages[key] for key in alive}
        return sum(s.nbytes() for s in alive.values())

    def next_phase(self) -> int:
        """The peak so far; a new one begins."""
        peak, self.peak = self.peak, 0
        return peak
