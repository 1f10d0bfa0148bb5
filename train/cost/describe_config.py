"""The configuration of train.describe: a training run's, and what to say about it."""

from dataclasses import dataclass, field

from train.config import PretrainConfig


@dataclass(kw_only=True)
class DescribeOptions:
    """What a description needs to know beside the run."""

    world_size: int | None = None
    """Ranks (GPUs); null: global_batch_size / local_batch_size, with which no gradient is accumulated."""
    deadline_days: float = 7.0
    """In how many days the run is to be done."""
    speedup: float = 1.86
    """Speed-up of self-speculation over autoregressive decoding, for the break-even; the paper's for its 7B on
    CNN/DM."""
    output: str = "outputs/describe-${recipe}-${model.name}.png"
    """PNG of p(l, t) and e~(t, l)."""

    def __post_init__(self) -> None:
        if self.world_size is not None and self.world_size < 1:
            raise ValueError(f"describe.world_size={self.world_size}: must be null or at least 1")
        if not self.deadline_days > 0:
            raise ValueError(f"describe.deadline_days={self.deadline_days}: must be above 0")
        if not self.speedup > 1:
            raise ValueError(f"describe.speedup={self.speedup}: must be above 1")


@dataclass(kw_only=True)
class DescribeConfig(PretrainConfig):
    """A run and how to describe it."""

    describe: DescribeOptions = field(default_factory=DescribeOptions)
