"""transformers' Llama with a checkpoint's weights: what everybody decodes with, as a yardstick."""

import time
import warnings
from typing import Any

import torch

from eval.load import Checkpoint
from models.hf import to_hf
from models.hf_config import config_of


class Transformers:
    """LlamaForCausalLM, greedy, with its default cache."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> None:
        import transformers  # takes seconds

        size = checkpoint.stored.size
        # No token ends a text early, as in ours.
        settings = config_of(size, dtype=str(dtype).removeprefix("torch."), bos_id=None, eos_id=None)
        config = transformers.LlamaConfig(**settings, pad_token_id=0)
        model: Any = transformers.LlamaForCausalLM(config)
        model.load_state_dict(to_hf(checkpoint.stored.weights, size), strict=not size.tie_embeddings)
        self.model = model.to(device, dtype).eval()
        self.version = transformers.__version__

    def timed(self, prompt: list[int], max_new_tokens: int) -> tuple[list[int], float]:
        """The new tokens, and the seconds they took."""
        tokens = torch.tensor([prompt], device=self.model.device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            start = time.perf_counter()
            out = self.model.generate(
                tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=max_new_tokens, do_sample=False
            )
            text: list[int] = out[0, len(prompt) :].tolist()
            return text, time.perf_counter() - start
