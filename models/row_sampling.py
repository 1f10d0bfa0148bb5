"""How layer dropout draws rows: a choice that configurations hold, so it is free of torch."""

from enum import StrEnum


class Sampling(StrEnum):
    """How rows are drawn; all keep each row with probability 1 - p."""

    auto = "auto"
    """stratified where the steps are compiled (on GPUs, unless train.compile=false), else bernoulli."""
    bernoulli = "bernoulli"
    """Each row on its own, as in the paper."""
    stratified = "stratified"
    """floor(pB) rows are dropped, or one more: few shapes occur, so torch.compile keeps its cache."""

    def where(self, *, compiled: bool) -> "Sampling":
        """What `auto` stands for in steps that are compiled or not; the others stand for themselves."""
        if self is not Sampling.auto:
            return self
        return Sampling.stratified if compiled else Sampling.bernoulli
