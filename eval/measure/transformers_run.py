"""transformers' Llama with a checkpoint's weights: what everybody decodes with, as a yardstick."""

import importlib.metadata
import time
import warnings
from typing import Any

import torch

from eval.engine.checkpoint import Checkpoint
from eval.engine.stopping import StopRule
from eval.measure.timing import Timed
from models.storage.hf import to_hf
from models.storage.hf_config import config_of


def version() -> str:
    """Version of the installed transformers."""
    return importlib.metadata.version("transformers")


class Transformers:
    """LlamaForCausalLM, greedy, with its default cache."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> None:
        import transformers  # takes seconds

        size = checkpoint.stored.size
        # What ends a text is passed with each prompt.
        settings = config_of(size, dtype=str(dtype).removeprefix("torch."), bos_id=None, eos_id=None)
        config = transformers.LlamaConfig(**settings, pad_token_id=0)
        model: Any = transformers.LlamaForCausalLM(config)
        model.load_state_dict(to_hf(checkpoint.stored.weights, size), strict=not size.tie_embeddings)
        self.model = model.to(device, dtype).eval()

    def timed(self, prompt: list[int], stop: StopRule) -> Timed:
        """The new tokens, and what they took; its rounds are not known. Stop strings are not looked for."""
        tokens = torch.tensor([prompt], device=self.model.device)
        ends = {"eos_token_id": sorted(stop.eos_ids)} if stop.eos_ids else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cpu, start = time.process_time(), time.perf_counter()
            out = self.model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=stop.max_new_tokens,
                do_sample=False,
                **ends,
            )
            text: list[int] = out[0, len(prompt) :].tolist()
            return Timed(text, [], time.perf_counter() - start, time.process_time() - cpu)
