"""From a run folder, one of its checkpoints or a Hugging Face folder to a model that decodes, and its tokenizer."""

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from safetensors.torch import load_file
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_dcp

from data.config import DataError
from data.tokenizer import Tokenizer
from models.checkpoints import complete_checkpoints
from models.config import ModelConfig
from models.hf import from_hf, our_names
from models.inference import InferenceLlama

Weights = dict[str, torch.Tensor]


class LoadError(ValueError):
    """A folder that no model can be read from, told in one line."""


class Checkpoint(NamedTuple):
    """What a path holds, on the CPU, in the dtype it was stored in."""

    size: ModelConfig
    weights: Weights
    """By our names (models/hf.py)."""
    tokenizer: Tokenizer
    folder: Path
    """The run folder or the Hugging Face folder."""
    run: Mapping[str, Any] | None
    """The resolved configuration of the run; None for a Hugging Face folder."""

    def model(self, dtype: torch.dtype, device: torch.device) -> InferenceLlama:
        """The model, to decode in this dtype on this device."""
        return InferenceLlama(self.size, self.weights, dtype=dtype, device=device)


def read(path: str | Path) -> Checkpoint:
    """Read a run folder (its newest checkpoint), a folder checkpoint/step-N of it, or a Hugging Face folder.

    The latter has config.json, safetensors and a SentencePiece tokenizer.model. Raises LoadError.
    """
    folder = Path(path).expanduser()
    return _hugging_face(folder) if (folder / "config.json").exists() else _run(folder)


def load(
    path: str | Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> tuple[InferenceLlama, Tokenizer]:
    """The model that a path (see `read`) holds, ready to decode, and its tokenizer. Raises LoadError."""
    checkpoint = read(path)
    return checkpoint.model(dtype, torch.device(device)), checkpoint.tokenizer


def _run(folder: Path) -> Checkpoint:
    checkpoint = folder if (folder / ".metadata").exists() else _newest_checkpoint(folder)
    run = checkpoint.parent.parent
    try:
        config = yaml.safe_load((run / "config.yaml").read_text())
        size = ModelConfig(**config["model"])
    except OSError as error:
        raise LoadError(
            f"{run}/config.yaml: {error.strerror}; a checkpoint is read from within its run folder"
        ) from None
    return Checkpoint(size, _read_dcp(checkpoint, size), Tokenizer.load(run / "tokenizer.model"), run, config)


def _newest_checkpoint(run: Path) -> Path:
    complete = complete_checkpoints(run)
    if not complete:
        raise LoadError(f"{run}: neither a run folder with a checkpoint, nor a checkpoint, nor a Hugging Face folder")
    return complete[max(complete)]


def _read_dcp(checkpoint: Path, size: ModelConfig) -> Weights:
    """The weights alone, of a checkpoint written by any number of ranks."""
    try:
        entries = FileSystemReader(checkpoint).read_metadata().state_dict_metadata
        stored = {n: entry for n, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}
        if missing := [n for n in our_names(size) if n not in stored]:
            raise LoadError(f"{checkpoint}: missing tensors: {', '.join(missing)}")
        weights = {n: torch.empty(stored[n].size, dtype=stored[n].properties.dtype) for n in our_names(size)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is one process
            load_dcp(weights, checkpoint_id=checkpoint, no_dist=True)
    except LoadError:
        raise
    except (CheckpointException, Exception) as error:  # the former is a BaseException; readers raise anything
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise LoadError(f"{checkpoint}: cannot be read ({reason})") from error
    return weights


def _hugging_face(folder: Path) -> Checkpoint:
    try:
        config: Mapping[str, Any] = json.loads((folder / "config.json").read_text())
        size = _size_of(config, folder.name)
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise LoadError(f"{folder}: no .safetensors file")
        tensors: Weights = {}
        for file in files:
            tensors |= load_file(file)
        return Checkpoint(size, from_hf(tensors, size), Tokenizer.load(folder / "tokenizer.model"), folder, None)
    except (LoadError, DataError):
        raise
    except Exception as error:
        reason = re.sub(r"\s+", " ", str(error))
        raise LoadError(f"{folder}: cannot be read as a Hugging Face Llama ({reason})") from error


def _size_of(config: Mapping[str, Any], name: str) -> ModelConfig:
    """Our sizes from a Hugging Face config. Raises LoadError for what this decoder does not do."""
    if config.get("model_type") != "llama":
        raise LoadError(f"{name}: model_type {config.get('model_type')} is not llama")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise LoadError(f"{name}: RoPE scaling {rope} is not supported yet")
    if config.get("attention_bias") or config.get("mlp_bias"):
        raise LoadError(f"{name}: biases are not supported")
    return ModelConfig(
        name=name,
        dim=config["hidden_size"],
        n_layers=config["num_hidden_layers"],
        n_heads=config["num_attention_heads"],
        n_kv_heads=config.get("num_key_value_heads"),
        ffn_dim=config["intermediate_size"],
        vocab_size=config["vocab_size"],
        max_seq_len=config["max_position_embeddings"],
        rope_theta=rope.get("rope_theta", config.get("rope_theta", 10000.0)),
        norm_eps=config["rms_norm_eps"],
        tie_embeddings=config.get("tie_word_embeddings", False),
    )
