"""Weights as a checkpoint from which training and decoding start."""

import shutil
import warnings
from dataclasses import asdict
from pathlib import Path

import torch
import yaml
from torch.distributed.checkpoint.state_dict_saver import save as save_dcp

from conf.progress import each
from models.storage.checkpoints import CHECKPOINTS, PARTIAL
from models.storage.manifest import add_manifest
from models.storage.sources import Weights

# No step of ours has been taken.
STEP = "step-0"


def write_weights(weights: Weights, folder: Path, *, dtype: torch.dtype | None) -> None:
    """Write <folder>/checkpoint/step-0, complete or not at all. The weights are in memory once.

    `dtype` None keeps what each tensor has; training computes with its own copy in fp32 in any case.
    """
    names = each(weights, "reading weights", unit="tensor")
    tensors = {name: weights[name] if dtype is None else weights[name].to(dtype) for name in names}
    if weights.size.tie_embeddings:
        # A training model has one matrix under two names, and its checkpoints have both.
        tensors["lm_head.weight"] = tensors["tok_embeddings.weight"]
    checkpoint = folder / CHECKPOINTS / STEP
    partial = checkpoint.with_name(checkpoint.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is one process
        save_dcp(tensors, checkpoint_id=partial, no_dist=True)
    add_manifest(partial, {"step": 0})
    shutil.rmtree(checkpoint, ignore_errors=True)  # a half of before there were manifests
    partial.rename(checkpoint)


def write_dcp(weights: Weights, folder: Path, *, dtype: torch.dtype | None) -> None:
    """Write the weights and, in config.yaml, the sizes."""
    write_weights(weights, folder, dtype=dtype)
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": asdict(weights.size)}, sort_keys=False))
