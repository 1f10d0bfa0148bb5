"""What decides about the weights that come out of a run, of everything that its configuration holds."""

from collections.abc import Mapping
from typing import Any

# What a machine needs (caches, workers, log lines) is no part of it. None: all keys of a section.
RECIPE: dict[str, tuple[str, ...] | None] = {
    "checkpoint": ("initial",),
    "layer_dropout": None,
    "early_exit": None,
    "train": ("steps", "seq_len", "global_batch_size", "seed", "precision", "fp8", "max_grad_norm"),
    "optimizer": None,
    "lr_scheduler": None,
    "data": ("packing", "attend_across_documents", "validation_fraction"),
}
ONLY_MEASURE = {"early_exit.gradient_cosine_every"}
"""Keys of these sections that change no weight."""


def recipe_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> value, less the sources of the data.

    Args:
        config: a run's, as config.yaml holds it, or a part of one.
    """
    return {
        f"{section}.{key}": value
        for section, keys in RECIPE.items()
        for key, value in config.get(section, {}).items()
        if key in (keys or config[section]) and f"{section}.{key}" not in ONLY_MEASURE
    }
