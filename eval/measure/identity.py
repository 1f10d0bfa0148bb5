"""What a measurement's numbers depend on, as digests: which weights, which samples, which code."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from conf.code_digest import code_digest
from conf.strict import ConfigError
from data.tokenizers.tokenizer import Tokenizer
from eval.tasks.task import Sample
from models.storage.stored import Stored

# A folder may be moved, and the next commit may change a page of documentation.
WITHOUT_EFFECT = ("checkpoint", "baseline", "commit")


def conditions(facts: Mapping[str, Any], *modules: str) -> dict[str, Any]:
    """The facts that the numbers of a measurement depend on, with a digest of the code that measures."""
    kept = {key: value for key, value in facts.items() if key not in WITHOUT_EFFECT}
    return kept | {"code": code_digest(*modules)}


def weights_digest(stored: Stored) -> str:
    """A digest of the final norm and a matrix of the last block, which training always changes; cheap to read."""
    names = ("norm.weight", f"layers.{stored.size.n_layers - 1}.attention.wo.weight")
    digest = hashlib.sha256()
    for name in names:
        digest.update(stored.weights[name].detach().to(torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def samples_digest(samples: Sequence[Sample]) -> str:
    """A digest of ids, prompts as the model reads them, and references."""
    content = [[s.id, s.tokens, s.reference] for s in samples]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def check_same_reading(ours: Tokenizer, theirs: Tokenizer, samples: Sequence[Sample], key: str) -> None:
    """Raise ConfigError when another model's tokenizer reads the samples' prompts otherwise."""
    if ours.eos_id != theirs.eos_id or any(ours.encode(s.prompt) != theirs.encode(s.prompt) for s in samples):
        raise ConfigError(f"{key}: has another tokenizer, so that its times per token cannot be compared")
