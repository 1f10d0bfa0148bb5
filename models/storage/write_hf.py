"""Weights and configuration as a Hugging Face folder."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from conf.progress import each
from models.storage.hf import hf_layout, hf_name
from models.storage.hf_config import config_of
from models.storage.hf_index import INDEX
from models.storage.sources import Weights


def write_hf(
    weights: Weights,
    folder: Path,
    *,
    dtype: torch.dtype | None,
    max_shard_bytes: float,
    bos_id: int | None,
    eos_id: int | None,
) -> None:
    """Write safetensors files of at most `max_shard_bytes` each, config.json and generation_config.json.

    One file's tensors are in memory at a time. `dtype` None keeps what each tensor has.
    """
    placed: dict[str, int] = {}
    counts: Counter[torch.dtype] = Counter()
    total = n_files = 0
    for shard in _shards(weights, dtype, max_shard_bytes):
        n_files += 1
        save_file(shard, folder / f"{n_files}.safetensors", metadata={"format": "pt"})
        placed |= dict.fromkeys(shard, n_files)
        counts.update(t.dtype for t in shard.values())
        total += sum(t.nbytes for t in shard.values())
    names = {
        i: "model.safetensors" if n_files == 1 else f"model-{i:05d}-of-{n_files:05d}.safetensors"
        for i in range(1, n_files + 1)
    }
    for i, name in names.items():
        (folder / f"{i}.safetensors").rename(folder / name)
    if n_files > 1:
        index = {"metadata": {"total_size": total}, "weight_map": {n: names[i] for n, i in placed.items()}}
        _write_json(folder / INDEX, index)
    stored = str(counts.most_common(1)[0][0]).removeprefix("torch.")
    _write_json(folder / "config.json", config_of(weights.size, dtype=stored, bos_id=bos_id, eos_id=eos_id))
    generation = {"bos_token_id": bos_id, "eos_token_id": eos_id, "do_sample": False}
    _write_json(folder / "generation_config.json", {k: v for k, v in generation.items() if v is not None})


def _shards(weights: Weights, dtype: torch.dtype | None, max_bytes: float) -> Iterator[dict[str, torch.Tensor]]:
    """Tensors under Hugging Face's names and layouts, as many at a time as fit; at least one."""
    shard: dict[str, torch.Tensor] = {}
    for name in each(weights, "writing weights", unit="tensor"):
        tensor = weights[name]
        tensor = tensor if dtype is None else tensor.to(dtype)
        tensor = hf_layout(name, tensor, weights.size)
        if shard and sum(t.nbytes for t in shard.values()) + tensor.nbytes > max_bytes:
            yield shard
            shard = {}
        shard[hf_name(name)] = tensor.contiguous()
    yield shard


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
