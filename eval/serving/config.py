"""The configuration of eval.serving.check."""

from dataclasses import dataclass, field
from enum import StrEnum

from omegaconf import MISSING

from conf.checks import at_least, ends_in
from eval.config import Dtype, MachineConfig
from eval.tasks.choices import Task


class Server(StrEnum):
    """An engine that serves models."""

    vllm = "vllm"
    """vLLM on a CPU, with the Hugging Face folder; the first layers draft as its `draft_model`."""
    llama_cpp = "llama_cpp"
    """llama.cpp, with the GGUF file; the first layers draft as its draft model."""


@dataclass(kw_only=True)
class ServingConfig:
    """Decode the same prompts with this engine and with others, plainly and with the first layers as a draft model."""

    checkpoint: str = MISSING
    """A run folder, one of its checkpoints, a Hugging Face folder, a .gguf file or hf://org/name."""
    task: Task = MISSING
    """Whose prompts: a file of conf/task. Texts are decoded greedily, one after another, and end at the end token."""
    servers: list[Server] = field(default_factory=lambda: list(Server))
    """With which engines to compare."""
    exit_layer: int | None = None
    """E, the layers that draft; null: the fastest that was measured of the checkpoint, else a quarter of the layers."""
    num_speculations: int | None = None
    """d, the tokens that they draft in a round; null: as measured, else 3."""
    python: str = ".venv-serve/bin/python"
    """The Python that has the other engines; `make serve-check` sets it up."""
    compile: bool = False
    """Whether vLLM compiles its passes, which takes minutes at its start; false: it runs them as they are."""
    rounds: int = 1
    """How often each text is decoded; the fastest counts."""
    output: str | None = None
    """Rows as .json, and as .csv beside it; null: serving.json in the checkpoint's folder."""
    machine: MachineConfig = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        at_least(1, self, "num_speculations", "rounds")
        ends_in(".json", self, "output")
        self.machine.refuse_draft_vocab("the other engines draft from all tokens")
        if self.machine.int8:
            raise ValueError("machine.weights=int8: has no effect on the other engines, and all have the same weights")
        if self.machine.dtype is Dtype.float64:
            raise ValueError("machine.dtype=float64: the other engines do not have it; take float32")
        if self.machine.device != "cpu":
            raise ValueError(f"machine.device={self.machine.device}: the other engines are set up for the CPU alone")
