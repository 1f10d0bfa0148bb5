"""How tokens are chosen: the part of decoding that a configuration holds, so it is free of torch."""

from dataclasses import dataclass, fields

SMALLEST = 1e-4
"""Temperature below which logits, divided by it, would leave the range of fp32 or draw the most likely token alone."""


@dataclass(kw_only=True)
class SamplingOptions:
    """How tokens are chosen. Raises ValueError for impossible values."""

    temperature: float = 0.0
    """0 is greedy."""
    top_k: int = 0
    """Only the k most likely tokens; 0 is all."""
    top_p: float = 1.0
    """Only the most likely tokens that together reach this probability."""
    min_p: float = 0.0
    """Only tokens at least so likely as this share of the likeliest one; 0 is all."""
    repetition_penalty: float = 1.0
    """Logits of tokens that stand in prompt or text are divided by it, or multiplied if negative; 1 is none. It holds
    for greedy decoding, too."""
    seed: int = 0
    """Seed of the draws."""

    @property
    def plain(self) -> bool:
        """Whether each token is simply the most likely one."""
        return self.temperature == 0.0 and self.repetition_penalty == 1.0

    @property
    def whole(self) -> bool:
        """Whether each token comes from all of the model's distribution at a temperature, whatever has been seen."""
        filters = self.top_k or self.top_p < 1.0 or self.min_p or self.repetition_penalty != 1.0
        return self.plain or not filters

    def __str__(self) -> str:
        """What is not the default, the seed aside: `temperature=1 top_p=0.9`; empty for plain greedy decoding."""
        others = (f for f in fields(self) if f.name != "seed" and getattr(self, f.name) != f.default)
        return " ".join(f"{f.name}={getattr(self, f.name):g}" for f in others)

    def __post_init__(self) -> None:
        if self.temperature and not SMALLEST <= self.temperature < float("inf"):
            raise ValueError(f"sampling.temperature={self.temperature}: must be 0 (greedy) or at least {SMALLEST}")
        if self.top_k < 0:
            raise ValueError(f"sampling.top_k={self.top_k}: must be at least 0 (0 is all)")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"sampling.top_p={self.top_p}: must be above 0, at most 1")
        if not 0.0 <= self.min_p <= 1.0:
            raise ValueError(f"sampling.min_p={self.min_p}: must be from 0 (all) to 1 (the likeliest alone)")
        if not 0.0 < self.repetition_penalty < float("inf"):
            raise ValueError(f"sampling.repetition_penalty={self.repetition_penalty}: must be above 0 (1 is none)")
