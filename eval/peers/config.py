"""The configuration of eval.compare_peers."""

from dataclasses import dataclass, field
from enum import StrEnum

from omegaconf import MISSING

from conf.checks import at_least, ends_in
from eval.config import MachineConfig
from eval.tasks.choices import Task


class Peer(StrEnum):
    """Whose decoder."""

    ours = "ours"
    """This project's engine."""
    transformers = "transformers"
    """generate of transformers: plain, assistant_early_exit, prompt_lookup_num_tokens."""
    economize = "economize"
    """decode of economize: plain, early_exit with the model's own head."""


@dataclass(kw_only=True)
class PeersConfig:
    """Decode the same prompts with the decoders of several projects, in turns."""

    checkpoint: str = MISSING
    """A run folder, one of its checkpoints, a Hugging Face folder, a .gguf file or hf://org/name."""
    task: Task = MISSING
    """Whose prompts: a file of conf/task. Texts are decoded greedily, nothing is scored."""
    systems: list[Peer] = field(default_factory=lambda: list(Peer))
    """Whose decoders; this project's own always takes part."""
    exit_layers: list[int] = field(default_factory=list)
    """E that each system tries to find its best setting; empty: the lower half of the layers, at most 5 of them."""
    num_speculations: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 6])
    """d that each system tries with each E."""
    looked_up: list[int] = field(default_factory=lambda: [3, 6, 10])
    """d that prompt lookup tries."""
    grid_samples: int = 2
    """The first samples, on which each system's best E and d are found; all of them are decoded again with it."""
    batch_size: int = 1
    """Prompts that are decoded at the same time; above 1 transformers has no speculation and is left out of it."""
    fresh: bool = False
    """Measure anew; false: go on with what an earlier start of the same settings has measured."""
    output: str | None = None
    """Rows as .json, and as .csv beside it; null: compare_peers.json in the checkpoint's folder, or
    compare_peers_TASK_KEY-VALUE.json when task and keys are not the default."""
    machine: MachineConfig = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        at_least(1, self, "grid_samples", "batch_size")
        ends_in(".json", self, "output")
        if self.machine.int8:
            raise ValueError("machine.weights=int8: has no effect on the other systems, and all have the same weights")
        if not self.num_speculations or not self.looked_up:
            raise ValueError("num_speculations and looked_up: give at least one number each")
        if wrong := [d for d in (*self.num_speculations, *self.looked_up) if d < 1]:
            raise ValueError(f"num_speculations, looked_up: {wrong[0]} must be at least 1")
