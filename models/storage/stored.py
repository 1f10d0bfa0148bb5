"""A model as it lies on disk, whatever the form: its sizes, its weights and the files of its tokenizer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from conf.errors import reason
from conf.hub import HUB
from models.config import ModelConfig
from models.storage.checkpoints import complete_checkpoints, is_checkpoint
from models.storage.errors import FormatError
from models.storage.gguf.file import GGUFWeights
from models.storage.hf_config import read_config, size_of
from models.storage.sources import CheckpointWeights, HuggingFaceWeights, Weights

RESULTS = ".results"
"""Suffix of a GGUF file's own results folder (model.results for model.gguf): several files often share a folder."""
TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


class Stored(NamedTuple):
    """What a path holds."""

    size: ModelConfig
    weights: Weights
    folder: Path
    """The run folder or the Hugging Face folder; of a GGUF file a folder beside it for results, which may be absent."""
    tokenizer_files: list[Path]
    """The TOKENIZER_FILES that exist; empty for a GGUF file, which contains its tokenizer."""
    run: Mapping[str, Any] | None = None
    """The resolved configuration of a run; None for anything else."""
    hf: Mapping[str, Any] | None = None
    """The content of config.json; None for anything else."""
    gguf: Path | None = None
    """The GGUF file, if it is one."""


def read(path: str | Path) -> Stored:
    """Look at a run folder (its newest checkpoint), a checkpoint, a Hugging Face folder, a .gguf file or hf://org/name.

    No tensor is read yet. Raises FormatError for what is none of these, or damaged.
    """
    path = _from_hub(str(path).removeprefix(HUB)) if str(path).startswith(HUB) else Path(path).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise FormatError(f"{path}: no such file")
        weights = GGUFWeights(path)
        return Stored(weights.size, weights, path.with_suffix(RESULTS), [], gguf=path)
    if (path / "config.json").exists():
        config = read_config(path)
        try:
            size = size_of(config, path.name)
        except FormatError as error:
            raise FormatError(f"{path}/{error}") from None
        return Stored(size, HuggingFaceWeights(path, size), path, _tokenizer_files(path), hf=config)
    checkpoint = path if is_checkpoint(path) else _newest_checkpoint(path)
    return _read_checkpoint(checkpoint)


def _from_hub(name: str) -> Path:
    """The folder of a model of the Hugging Face hub, downloaded unless it is in the local cache."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.safetensors", "*.json", "tokenizer.model"]))
    except Exception as error:
        raise FormatError(f"{HUB}{name}: cannot be had from the Hugging Face hub ({reason(error)})") from None


def _newest_checkpoint(run: Path) -> Path:
    complete = complete_checkpoints(run)
    if not complete:
        raise FormatError(f"{run}: neither a run folder with a checkpoint, nor a checkpoint, nor a Hugging Face folder")
    return complete[max(complete)]


def _read_checkpoint(checkpoint: Path) -> Stored:
    run = checkpoint.parent.parent
    try:
        config = yaml.safe_load((run / "config.yaml").read_text())
        size = ModelConfig(**config["model"])
    except OSError as error:
        raise FormatError(
            f"{run}/config.yaml: {error.strerror}; a checkpoint is read from within its run folder"
        ) from None
    except (yaml.YAMLError, TypeError, KeyError, ValueError) as error:
        raise FormatError(f"{run}/config.yaml: not the configuration of a run ({reason(error)})") from None
    return Stored(size, CheckpointWeights(checkpoint, size), run, _tokenizer_files(run), run=config)


def _tokenizer_files(folder: Path) -> list[Path]:
    return [folder / name for name in TOKENIZER_FILES if (folder / name).exists()]
