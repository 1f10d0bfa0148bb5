"""The configuration of `eval.correctness`."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from conf.checks import at_least, ends_in
from eval.config import DraftPolicy, ExitStates, MachineConfig
from eval.engine.sampling_options import SamplingOptions
from eval.tasks.choices import Task

DRAFTS_TO_CHECK = (1, 3, 8)


@dataclass(kw_only=True)
class CorrectnessConfig:
    """Compare decoders over the samples of a task, greedily."""

    checkpoint: str = MISSING
    """A run folder, one of its checkpoints, a Hugging Face folder, a .gguf file or hf://org/name."""
    task: Task = MISSING
    """Whose prompts, number of tokens and end of text: a file of conf/task. Nothing is scored."""
    exit_layers: list[int] = field(default_factory=list)
    """E of self-speculation; empty: the first layer, a quarter, half, and all but one."""
    num_speculations: list[int] = field(default_factory=list)
    """d; empty: 1, 3, 8."""
    policies: list[DraftPolicy] = field(default_factory=lambda: list(DraftPolicy))
    """Who decides how self-speculation drafts: all that are compared."""
    exit_states: list[ExitStates] = field(default_factory=lambda: list(ExitStates))
    """Kinds of verification that are compared."""
    batch_size: int = 1
    """Texts that are written at the same time by all but autoregressive decoding, which writes one alone: each must be
    the one it writes."""
    transformers: bool = False
    """Compare also transformers' generate with the same weights."""
    near_tie: float | None = None
    """Where texts part, logits closer than so many steps of the dtype at their size are taken for rounding; null: 64
    in float64, 256 in float32, 8 in float16 and bfloat16."""
    sampled: bool = False
    """Also compare the distribution of the first tokens that plain and self-speculative sampling draw."""
    draws: int = 2000
    """sampled=true: texts drawn for each prompt, by each decoder."""
    first_tokens: int = 3
    """sampled=true: of each text; the first one is the prefill's."""
    sampled_prompts: int = 2
    """sampled=true: so many of the samples."""
    sampling: SamplingOptions = field(default_factory=lambda: SamplingOptions(temperature=1.0, top_k=8))
    """sampled=true: how tokens are drawn. Among few likely tokens a difference is found with fewer draws."""
    show: int = 20
    """Differences printed; the output has all."""
    output: str | None = None
    """What was found, as .json; null: correctness.json in the checkpoint's folder, or correctness_TASK_KEY-VALUE.json
    when task and keys are not the default."""
    machine: MachineConfig = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        at_least(1, self, "batch_size", "draws", "first_tokens", "sampled_prompts", "show")
        ends_in(".json", self, "output")
        if self.near_tie is not None and not 0 <= self.near_tie < float("inf"):
            raise ValueError(f"near_tie={self.near_tie}: must be at least 0")
        if not self.policies:
            raise ValueError("policies: give fixed, confidence, dynamic or several of them")
        if not self.exit_states:
            raise ValueError("exit_states: give reuse, recompute or both")
        for d in self.num_speculations:
            if d < 1:
                raise ValueError(f"num_speculations={d}: must be at least 1")
        if self.sampled and not self.sampling.temperature:
            raise ValueError("sampling.temperature=0.0: draws nothing; must be above 0 with sampled=true")


def exits_to_check(n_layers: int) -> list[int]:
    """The first layer, a quarter, half, and all but one."""
    return sorted({max(1, e) for e in (1, n_layers // 4, n_layers // 2, n_layers - 1)})
