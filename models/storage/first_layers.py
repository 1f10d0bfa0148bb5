"""The first layers of a stored model with its final norm and its head: a Llama of its own, to draft for the whole."""

from dataclasses import replace

import torch

from models.storage.errors import FormatError
from models.storage.sources import Weights
from models.storage.stored import Stored


class FirstLayers(Weights):
    """Weights of another model, of which the last layers do not exist."""

    def __init__(self, whole: Weights, exit_layer: int) -> None:
        super().__init__(replace(whole.size, n_layers=exit_layer), whole.where)
        self.whole = whole

    def _read(self, name: str) -> torch.Tensor:
        return self.whole[name]


def first_layers(stored: Stored, exit_layer: int) -> Stored:
    """The model that early exit at `exit_layer` computes. Raises FormatError where no layer is left out."""
    n_layers = stored.size.n_layers
    if not 1 <= exit_layer < n_layers:
        raise FormatError(
            f"exit_layer={exit_layer}: must lie in 1..{n_layers - 1} of {stored.size.name}'s {n_layers} layers"
        )
    weights = FirstLayers(stored.weights, exit_layer)
    return stored._replace(size=weights.size, weights=weights)
