"""The configuration of the commands that decode."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from omegaconf import MISSING

from conf.checks import at_least, ends_in, fits_cores
from conf.strict import Retired
from eval.engine.sampling_options import SamplingOptions


class Mode(StrEnum):
    """The ways to decode one model."""

    autoregressive = "autoregressive"
    """Every token by all layers."""
    early_exit = "early_exit"
    """Every token by the first exit_layer layers."""
    self_speculative = "self_speculative"
    """The first exit_layer layers draft num_speculations tokens, the rest verify them: the output of all layers."""
    prompt_lookup = "prompt_lookup"
    """Tokens that followed the last few earlier in the text are drafts, all layers verify them: the output of all."""
    draft_model = "draft_model"
    """The first exit_layer layers as a model of its own, with its own cache, draft; all layers verify: their output."""

    @property
    def drafts(self) -> bool:
        """Whether tokens are drafted, and those of all layers come out."""
        return self not in (Mode.autoregressive, Mode.early_exit)


LAYERSKIP = (Mode.autoregressive, Mode.early_exit, Mode.self_speculative)
"""Modes of one model with exits; the others are what else drafts tokens, to compare."""


class DraftPolicy(StrEnum):
    """Who decides how self-speculation drafts. The text is the same."""

    fixed = "fixed"
    """Every round drafts num_speculations tokens with exit_layer layers."""
    confidence = "confidence"
    """A draft ends early where it is unsure, by a threshold that follows what is accepted."""
    dynamic = "dynamic"
    """Each round takes the exit_layer and num_speculations that give the most tokens per second at the moment."""


class ExitStates(StrEnum):
    """What verification does with the first layers' work on drafted tokens."""

    reuse = "reuse"
    """Takes keys, values and exit states from the cache."""
    recompute = "recompute"
    """Runs the drafted tokens through all layers again."""


class Dtype(StrEnum):
    """What to decode in."""

    auto = "auto"
    """bfloat16 on a GPU, float32 on a CPU."""
    float64 = "float64"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Weights(StrEnum):
    """What weights are held in."""

    dtype = "dtype"
    """The number format that is computed in."""
    int8 = "int8"
    """8 bits, with a scale for each output; computed and cached is in bfloat16. Another model, if a close one."""


class Kernels(StrEnum):
    """Whose code multiplies a few rows with a weight."""

    ours = "ours"
    torch = "torch"


class Color(StrEnum):
    """When to colour."""

    auto = "auto"
    """On a terminal, unless NO_COLOR is set."""
    always = "always"
    never = "never"


@dataclass(kw_only=True)
class MachineConfig:
    """Where and in what to decode."""

    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, ...; `auto` takes a GPU if there is one."""
    dtype: Dtype = Dtype.auto
    """Number format of weights and cache."""
    weights: Weights = Weights.dtype
    """`int8` halves the bytes of weights that bfloat16 reads for a token, and the memory for them."""
    kernels: Kernels = Kernels.ours
    """What runs short passes on a CPU: `ours` is compiled with the machine's C compiler."""
    draft_vocab: int | None = None
    """Drafts are chosen from so many tokens of the vocabulary, the most frequent of the text that the model was trained
    on, with a head of their own; null: from all; in eval.generate as many as its fastest setting was measured with."""
    prefill_chunk: int = 512
    """Tokens of a long text that pass through the layers at once, at most: what bounds the memory of its pass."""
    threads: int | None = None
    """CPU threads. null: as many as decode fastest, found by timing passes at the start and again every few seconds,
    since what else the machine does decides it; at most OMP_NUM_THREADS or the cores."""

    def __post_init__(self) -> None:
        at_least(1, self, "threads", "prefill_chunk", "draft_vocab", section="machine.")
        if self.int8 and self.dtype not in (Dtype.auto, Dtype.bfloat16):
            raise ValueError(f"machine.weights=int8: computes in bfloat16; leave out machine.dtype={self.dtype}")
        fits_cores(self, "threads", section="machine.")

    @property
    def int8(self) -> bool:
        """Whether weights are held in 8 bits."""
        return self.weights is Weights.int8

    @property
    def model_options(self) -> dict[str, Any]:
        """How a model is set up, besides its device and dtype (models/inference.py)."""
        return {
            "int8": self.int8,
            "prefill_chunk": self.prefill_chunk,
            "our_kernels": self.kernels is Kernels.ours,
            "draft_vocab": self.draft_vocab,
        }

    def refuse_draft_vocab(self, why: str) -> None:
        """Raise ValueError if drafts are to be chosen from some tokens alone."""
        if self.draft_vocab is not None:
            raise ValueError(f"machine.draft_vocab={self.draft_vocab}: {why}; leave it out")


@dataclass(kw_only=True)
class GenerateConfig:
    """Continue one text."""

    RETIRED: ClassVar[Retired] = {"html": "output"}

    checkpoint: str = MISSING
    """A run folder, one of its checkpoints, a Hugging Face folder, a .gguf file or hf://org/name."""
    prompt: str | None = None
    """The text to continue, taken as it is; null: from prompt_file."""
    prompt_file: str = "-"
    """A UTF-8 text file; `-` is standard input."""
    chat: bool = False
    """Ask the prompt as a user's turn in the model's own chat template."""
    mode: Mode | None = None
    """How to decode; null: self_speculative; autoregressive where its benchmark found no setting that is faster and
    neither exit_layer nor num_speculations is given."""
    policy: DraftPolicy | None = None
    """Who decides how self-speculation drafts; null: the fastest in the checkpoint's benchmark, else fixed. `dynamic`
    chooses exit_layer and num_speculations itself."""
    exit_layer: int | None = None
    """Layers of the draft or of the early exit; null: the fastest in the checkpoint's benchmark, else a quarter."""
    num_speculations: int | None = None
    """Tokens drafted per round; null: the fastest in the checkpoint's benchmark, else 3."""
    max_new_tokens: int = 128
    """At most so many tokens."""
    stop: list[str] = field(default_factory=list)
    """Strings that end the text; it ends with the token that completes one."""
    ignore_eos: bool = False
    """Go on after the end-of-text token."""
    color: Color = Color.auto
    """Show which tokens were drafted and accepted, and which the full model supplied."""
    output: str | None = None
    """A page, .html, that shows who supplied each token and which drafts were rejected; null: none."""
    sampling: SamplingOptions = MISSING
    machine: MachineConfig = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        at_least(1, self, "max_new_tokens")
        ends_in(".html", self, "output")
        if "" in self.stop:
            raise ValueError("stop: an empty string would stop at once; leave it out")
