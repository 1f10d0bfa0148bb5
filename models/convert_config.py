"""The configuration of models.convert."""

from dataclasses import dataclass
from enum import StrEnum

from omegaconf import MISSING

from conf.checks import at_least

GGUF = ".gguf"


class WeightsFormat(StrEnum):
    """What to write."""

    auto = "auto"
    """A Hugging Face folder, or a GGUF file where the output ends in .gguf; but a checkpoint from a Hugging Face folder
    with all its layers."""
    hf = "hf"
    """A Hugging Face folder: safetensors, configuration, tokenizer, model card."""
    dcp = "dcp"
    """A checkpoint to train or decode from, with its model sizes and its tokenizer."""
    gguf = "gguf"
    """A GGUF file, for llama.cpp and what is built on it, with the tokenizer and the chat template."""


class StoredDtype(StrEnum):
    """Numbers of the written weights."""

    keep = "keep"
    """The dtype of the source; quantized tensors of a GGUF file become float32."""
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    q8_0 = "q8_0"
    """8 bits, with one scale for each 32 numbers of a row; in a GGUF file only."""


@dataclass(kw_only=True)
class ConvertConfig:
    """From one form of a Llama to another."""

    source: str = MISSING
    """A run folder, one of its checkpoints, a Hugging Face folder, hf://org/name on the hub, or a .gguf file."""
    output: str = MISSING
    """Folder to write, or file that ends in .gguf; must not exist yet."""
    format: WeightsFormat = WeightsFormat.auto
    """What to write."""
    exit_layer: int | None = None
    """E: only the first E layers, with the final norm and the head, as a model of its own that drafts for the whole
    one; null: all layers."""
    dtype: StoredDtype = StoredDtype.keep
    """Numbers of the written weights."""
    max_shard_gigabytes: float = 4.0
    """Largest safetensors file; a larger model is written as several."""

    @property
    def writes_gguf(self) -> bool:
        """Whether the output is a GGUF file."""
        return self.format is WeightsFormat.gguf or (self.format is WeightsFormat.auto and self.output.endswith(GGUF))

    def __post_init__(self) -> None:
        at_least(1, self, "exit_layer")
        to_gguf, named = self.writes_gguf, self.output.endswith(GGUF)
        if to_gguf and not named:
            raise ValueError(f"output={self.output}: must end in {GGUF} with format=gguf, which writes a file")
        if named and not to_gguf:
            raise ValueError(f"output={self.output}: ends in {GGUF}, but format={self.format} writes a folder")
        if self.dtype is StoredDtype.q8_0 and not to_gguf:
            raise ValueError("dtype=q8_0: is of GGUF files alone; write one with format=gguf, or take bfloat16")
        if not self.max_shard_gigabytes > 0:
            raise ValueError(f"max_shard_gigabytes={self.max_shard_gigabytes}: must be above 0")
