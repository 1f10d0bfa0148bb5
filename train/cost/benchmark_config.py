"""What `python -m train.benchmark` is asked to do."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from omegaconf import MISSING

from conf.checks import at_least, ends_in, fits_cores
from conf.strict import Retired
from models.config import ModelConfig
from models.row_sampling import Sampling
from train.config import Recompute
from train.precision import Precision


class Device(StrEnum):
    """Where to measure."""

    auto = "auto"
    """On a GPU if there is one."""
    cpu = "cpu"
    cuda = "cuda"


@dataclass(kw_only=True)
class MachineConfig:
    """Where to measure; `machine` is also the section's name in the commands of eval."""

    device: Device = Device.auto
    """What the steps run on."""
    threads: int | None = None
    """CPU threads of each arm; null: torch's default."""

    def __post_init__(self) -> None:
        at_least(1, self, "threads", section="machine.")
        fits_cores(self, "threads", section="machine.")


@dataclass(kw_only=True)
class TrainBenchmarkConfig:
    """Sizes, arms and where the figures go."""

    RETIRED: ClassVar[Retired] = {"device": "machine.device", "threads": "machine.threads"}

    output: str = MISSING
    """A .json file."""
    model: ModelConfig = MISSING
    """Sizes; at least a few layers of some width, or what is not a matrix product decides."""
    seq_len: int = 256
    """Tokens of a row."""
    batch_size: int = 8
    """Rows of a micro-batch."""
    n_exits: list[int] = field(default_factory=list)
    """Numbers of exits to train at once; empty: 1, 2, L/4 and L."""
    p_max: list[float] = field(default_factory=lambda: [0.2, 0.5])
    """Layer dropout's largest probabilities; depth schedule exponential, the paper's."""
    sampling: Sampling = Sampling.auto
    """How rows are dropped."""
    checkpointing: list[Recompute] = field(default_factory=lambda: [Recompute.none, Recompute.full])
    """Activation checkpointing to measure."""
    loss_chunk_tokens: int = 256
    """Tokens that go through the LM head at a time, in all arms."""
    precision: Precision = Precision.fp32
    """fp32, or bf16 for autocast; auto: what training would take."""
    compile: bool = False
    """torch.compile every block and the loss, as train.compile does."""
    rounds: int = 5
    """Pairs of steps of each arm and plain."""
    warmup: int = 1
    """Steps of each arm before, not counted."""
    machine: MachineConfig = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        ends_in(".json", self, "output")
        self.model.check_trainable()
        at_least(1, self, "seq_len", "batch_size", "loss_chunk_tokens", "rounds", "warmup")
        if bad := [p for p in self.p_max if not 0.0 < p < 1.0]:
            raise ValueError(f"p_max={bad[0]}: must lie between 0 and 1")
        if bad_n := [n for n in self.n_exits if not 1 <= n <= self.model.n_layers]:
            raise ValueError(f"n_exits={bad_n[0]}: must lie in 1..n_layers={self.model.n_layers}")
        if Recompute.selective in self.checkpointing:
            raise ValueError("checkpointing=selective: what it costs is not a matter of matrix products; none or full")
        if self.seq_len * self.batch_size % self.loss_chunk_tokens or self.seq_len % self.n_chunks:
            raise ValueError(
                f"loss_chunk_tokens={self.loss_chunk_tokens}: must divide batch_size * seq_len ="
                f" {self.seq_len * self.batch_size} into a number of chunks that divides seq_len (torchtitan's loss"
                " cuts the sequence)"
            )

    @property
    def n_chunks(self) -> int:
        """Chunks of one exit's tokens."""
        return self.seq_len * self.batch_size // self.loss_chunk_tokens
