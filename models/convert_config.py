"""The configuration of models.convert."""

from dataclasses import dataclass
from enum import StrEnum

from omegaconf import MISSING

from conf.checks import at_least


class WeightsFormat(StrEnum):
    """What to write."""

    auto = "auto"
    """A Hugging Face folder; a checkpoint from a Hugging Face folder of which all layers are taken."""
    hf = "hf"
    """A Hugging Face folder: safetensors, configuration, tokenizer, model card."""
    dcp = "dcp"
    """A checkpoint to train or decode from, with its model sizes and its tokenizer."""


class StoredDtype(StrEnum):
    """Numbers of the written weights."""

    keep = "keep"
    """The dtype of the source; quantized tensors of a GGUF file become float32."""
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


@dataclass(kw_only=True)
class ConvertConfig:
    """From one form of a Llama to another."""

    source: str = MISSING
    """A run folder, one of its checkpoints, a Hugging Face folder, hf://org/name on the hub, or a .gguf file."""
    output: str = MISSING
    """Folder to write; must not exist yet."""
    format: WeightsFormat = WeightsFormat.auto
    """What to write."""
    exit_layer: int | None = None
    """E: only the first E layers, with the final norm and the head, as a model of its own that drafts for the whole
    one; null: all layers."""
    dtype: StoredDtype = StoredDtype.keep
    """Numbers of the written weights."""
    max_shard_gigabytes: float = 4.0
    """Largest safetensors file; a larger model is written as several."""

    def __post_init__(self) -> None:
        at_least(1, self, "exit_layer")
        if not self.max_shard_gigabytes > 0:
            raise ValueError(f"max_shard_gigabytes={self.max_shard_gigabytes}: must be above 0")
