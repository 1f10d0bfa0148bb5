"""What `python -m train.acceptance` is asked to do."""

from dataclasses import dataclass
from enum import StrEnum

from conf.checks import at_least, ends_in
from train.cost.benchmark_config import Device


class Sizes(StrEnum):
    """How large what is measured is."""

    auto = "auto"
    """full on a GPU, tiny on a CPU."""
    full = "full"
    """A Llama of 1.5 billion parameters, rows of 4,096 tokens, bf16: for one GPU of 80 GB or more."""
    tiny = "tiny"
    """Models of seconds, to try the command itself."""


@dataclass(kw_only=True)
class AcceptanceConfig:
    """Everything that needs a GPU, measured one after the other within a time."""

    device: Device = Device.auto
    """What to measure on."""
    sizes: Sizes = Sizes.auto
    """How large what is measured is."""
    minutes: float = 10.0
    """For all steps together. What a step leaves of its share goes to those after it; one that needs more is ended."""
    checkpoint: str | None = None
    """A run folder (a demo's) whose text is decoded as well, beside that of random weights; null: none."""
    output: str = "docs/results/gpu.md"
    """Page with the tables; the numbers go beside it, as .json."""
    folder: str = "outputs/acceptance"
    """Where the steps write: logs, results, a small run, and a model of random weights (3 GB), removed at the end."""
    fresh: bool = False
    """Measure anew; false: keep the steps that an earlier start of the same code, device and sizes has finished."""

    def __post_init__(self) -> None:
        at_least(0.1, self, "minutes")
        ends_in(".md", self, "output")
