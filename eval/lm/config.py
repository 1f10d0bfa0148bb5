"""The configuration of the commands that run lm-evaluation-harness."""

from dataclasses import dataclass, field
from typing import ClassVar

from omegaconf import MISSING

from conf.checks import at_least, count_or_auto, ends_in
from conf.strict import Retired
from eval.config import DraftPolicy, MachineConfig, Mode


@dataclass(kw_only=True)
class LmEvalConfig:
    """Which tasks, and how; values that are left open are each task's."""

    RETIRED: ClassVar[Retired] = {"limit": "n_samples", "num_fewshot": "n_shots"}
    WITHOUT_EFFECT: ClassVar[tuple[str, ...]] = ("batch_size",)

    checkpoint: str = MISSING
    """A run folder, one of its checkpoints, a Hugging Face folder, a .gguf file or hf://org/name."""
    tasks: list[str] = MISSING
    """Names of tasks, groups or tags of lm-eval, patterns of them (`mmlu_*`), or paths of task files."""
    include_path: str | None = None
    """A folder with task files of your own."""
    n_shots: int | None = None
    """Examples before each question."""
    n_samples: float | None = None
    """Only the first so many questions of each task; below 1: that share of them."""
    batch_size: str = "8"
    """Inputs in a pass, and texts generated at the same time; `auto`: as many as fit into half of the free memory, at
    most 64."""
    max_length: int | None = None
    """Tokens of context; null: the model's."""
    gen_kwargs: str | None = None
    """Over a task's generation_kwargs: `max_gen_toks=64,do_sample=true,temperature=0.8`."""
    add_bos_token: bool | None = None
    """Put the token that begins a text before every context, or never; null: as the tokenizer does."""
    apply_chat_template: bool = False
    """Ask as the user of the tokenizer's chat template."""
    system_instruction: str | None = None
    """Text before everything."""
    confirm_run_unsafe_code: bool = False
    """Allow tasks that run code that the model writes (HumanEval, MBPP), without a sandbox."""
    bootstrap_iters: int = 1000
    """Bootstrap draws for standard errors that have no formula."""
    seed: int | None = None
    """Seed of examples and draws; null: lm-eval's own (0 for Python, 1234 for the rest)."""
    fresh: bool = False
    """Answer anew; false: take the answers that an earlier start with the same settings has left."""
    output: str | None = None
    """Where the results go, a .json; null: in the checkpoint's folder, named after the command, its tasks and the
    keys that are not the default."""
    machine: MachineConfig = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        at_least(1, self, "max_length")
        self.machine.refuse_draft_vocab("not with lm-eval's tasks, whose texts it would not change")
        count_or_auto(self, "batch_size")
        at_least(0, self, "n_shots", "bootstrap_iters")
        n = self.n_samples
        if n is not None and (n <= 0 or (n > 1 and n != int(n))):
            raise ValueError(f"n_samples={n:g}: must be a share below 1 or a whole number")
        if not self.tasks:
            raise ValueError("tasks: empty; name some, for instance tasks=[hellaswag,arc_easy]")
        if self.gen_kwargs is not None and not all("=" in part for part in self.gen_kwargs.split(",")):
            raise ValueError(f"gen_kwargs={self.gen_kwargs}: must be like max_gen_toks=64,temperature=0.8")
        ends_in(".json", self, "output")


@dataclass(kw_only=True)
class HarnessConfig(LmEvalConfig):
    """Run tasks in one mode."""

    mode: Mode = Mode.autoregressive
    """How texts are generated, and which exit scores: exit_layer in early_exit, all layers otherwise."""
    policy: DraftPolicy | None = None
    """Who decides how self-speculation drafts; null: the fastest in the checkpoint's benchmark, else fixed."""
    exit_layer: int | None = None
    """Layers of the draft or of the early exit; null: the fastest in the checkpoint's benchmark, else a quarter."""
    num_speculations: int | None = None
    """Tokens drafted per round; null: the fastest in the checkpoint's benchmark, else 3."""
    log_samples: bool = False
    """Write every question, answer and score as .jsonl beside the results."""


@dataclass(kw_only=True)
class ExitsConfig(LmEvalConfig):
    """Run tasks at many exits."""

    exit_layers: list[int] = field(default_factory=list)
    """Which; empty: all of them."""
