"""The GPU allocator's settings."""

import os

OLD, NEW = "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"
"""Variables of the environment that torch reads when it first allocates on a GPU."""


def let_segments_grow() -> None:
    """Ask for expandable segments: tensors whose sizes change from step to step then leave no holes between them.

    Before the first tensor on a GPU. What the user has set stands; without a GPU nobody reads it.
    """
    if OLD not in os.environ:
        os.environ.setdefault(NEW, "expandable_segments:True")
