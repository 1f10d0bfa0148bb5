"""Means that forget, so that an estimate follows a text as it changes."""


class DecayedMean:
    """The weighted mean of numbers, the newest with weight 1 and those before with decay, decay^2, ..."""

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.total = self.weight = 0.0

    def add(self, value: float, weight: float = 1.0, steps: int = 1) -> None:
        """A new number, by which the older ones decay `steps` times. One of weight 0 says nothing itself."""
        keep = self.decay**steps
        self.total, self.weight = self.total * keep + value * weight, self.weight * keep + weight

    def shrunk(self, prior: float, strength: float) -> float:
        """The mean with `prior` counted among the numbers, at the weight `strength`."""
        return (self.total + prior * strength) / (self.weight + strength)

    @property
    def mean(self) -> float | None:
        """None without a number."""
        return self.total / self.weight if self.weight else None
