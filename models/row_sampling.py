"""How layer dropout draws rows: a choice that configurations hold, so it is free of torch."""

from enum import StrEnum


class Sampling(StrEnum):
    """How rows are drawn; both keep each row with probability 1 - p."""

    bernoulli = "bernoulli"
    """Each row on its own, as in the paper."""
    stratified = "stratified"
    """floor(pB) rows are dropped, or one more: few shapes occur, so torch.compile keeps its cache."""
