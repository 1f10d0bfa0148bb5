"""Means that forget: the last twenty numbers or so count, so that an estimate follows a text as it changes."""

DECAY = 0.95
"""Weight of a number for each one that has come after it."""


class DecayedMean:
    """The weighted mean of numbers, the newest with weight 1 and those before with DECAY, DECAY^2, ..."""

    def __init__(self) -> None:
        self.total = self.weight = 0.0

    def add(self, value: float, weight: float = 1.0) -> None:
        """A new number; one of a smaller weight makes the older ones forgotten by as much less."""
        keep = 1 - (1 - DECAY) * weight
        self.total, self.weight = self.total * keep + value * weight, self.weight * keep + weight

    def shrunk(self, prior: float, strength: float) -> float:
        """The mean with `prior` counted among the numbers, at the weight `strength`."""
        return (self.total + prior * strength) / (self.weight + strength)

    @property
    def mean(self) -> float | None:
        """None without a number."""
        return self.total / self.weight if self.weight else None
