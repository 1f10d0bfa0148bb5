"""A model of random weights with a real tokenizer, in Hugging Face's format: for the time of passes, not for text."""

import math
from pathlib import Path

import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from conf.strict import register_schema
from models.config import ModelConfig
from models.storage.hf import shape_of
from models.storage.sources import Weights
from models.storage.stored import Stored, read
from models.storage.tokenizer_files import write_tokenizer_files
from models.storage.write_hf import write_hf
from train.config import PretrainConfig


class RandomWeights(Weights):
    """Normal numbers, drawn when they are asked for; ones in norms, zeros for tokens that a tokenizer does not have."""

    def __init__(self, size: ModelConfig, n_tokens: int, device: str) -> None:
        super().__init__(size, Path("random"))
        self.n_tokens, self.device = n_tokens, device

    def _read(self, name: str) -> torch.Tensor:
        shape = shape_of(name, self.size)
        if len(shape) == 1:
            return torch.ones(shape, dtype=torch.bfloat16)
        weight = torch.empty(shape, dtype=torch.bfloat16, device=self.device).normal_(std=1 / math.sqrt(shape[1]))
        if name.startswith("lm_head"):
            weight[self.n_tokens :] = 0  # never the largest of the logits
        return weight.cpu()


def write_random_model(device: str, model: str, tokenizer: str, output: str) -> dict[str, object]:
    """Write a model of the size conf/model/MODEL.yaml with the tokenizer of a run, or of another model."""
    register_schema("pretrain", PretrainConfig)
    with initialize_config_module("conf", version_base="1.3"):
        sizes = compose("pretrain", [f"model={model}"]).model
    size, folder = OmegaConf.to_object(sizes), Path(output)
    assert isinstance(size, ModelConfig)
    folder.mkdir(parents=True, exist_ok=True)
    stored = read(tokenizer)
    special = write_tokenizer_files(stored, folder)
    torch.manual_seed(0)
    weights = RandomWeights(size, _n_tokens(stored), device)
    write_hf(weights, folder, dtype=None, max_shard_bytes=5e9, bos_id=special.bos_id, eos_id=special.eos_id)
    return {"model": size.name, "parameters": weights.n_parameters(), "folder": output}


def _n_tokens(stored: Stored) -> int:
    """Tokens that the tokenizer has: a run may have trained one that is smaller than its model's vocabulary."""
    trained = (stored.run or {}).get("data", {}).get("tokenizer", {})
    if trained and trained.get("path") is None:
        return min(int(trained["vocab_size"]), stored.size.vocab_size)
    return stored.size.vocab_size
