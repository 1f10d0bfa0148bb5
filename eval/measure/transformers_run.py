"""transformers' Llama with a checkpoint's weights: what everybody decodes with, as a yardstick."""

import importlib.metadata
import time
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from eval.engine.checkpoint import Checkpoint
from eval.engine.rows import Request
from eval.engine.stopping import StopRule
from eval.measure.timing import Timed
from models.storage.hf import to_hf
from models.storage.hf_config import config_of


def version() -> str:
    """Version of the installed transformers."""
    return importlib.metadata.version("transformers")


class Transformers:
    """LlamaForCausalLM, greedy, with its default cache."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, batch_size: int = 1) -> None:
        """`batch_size`: prompts that are filled up to one length and decoded together, until all have ended."""
        import transformers  # takes seconds

        size = checkpoint.stored.size
        # What ends a text is passed with each prompt.
        settings = config_of(size, dtype=str(dtype).removeprefix("torch."), bos_id=None, eos_id=None)
        config = transformers.LlamaConfig(**settings, pad_token_id=0)
        model: Any = transformers.LlamaForCausalLM(config)
        model.load_state_dict(to_hf(checkpoint.stored.weights, size), strict=not size.tie_embeddings)
        self.model, self.batch_size = model.to(device, dtype).eval(), batch_size

    def timed(self, requests: Sequence[Request]) -> list[Timed]:
        """The new tokens, and what they took; its rounds are not known. Stop strings are not looked for."""
        parts = [requests[i : i + self.batch_size] for i in range(0, len(requests), self.batch_size)]
        return [text for part in parts for text in self._timed(part)]

    def _timed(self, requests: Sequence[Request]) -> list[Timed]:
        """Of one batch, whose texts have an equal share of its time each."""
        (tokens, mask), stop = padded([r.prompt for r in requests], self.model.device), requests[0].stop
        ends = {"eos_token_id": sorted(stop.eos_ids)} if stop.eos_ids else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cpu, start = time.process_time(), time.perf_counter()
            out = self.model.generate(
                tokens,
                attention_mask=mask,
                max_new_tokens=stop.max_new_tokens,
                do_sample=False,
                **ends,
            )
            texts: list[list[int]] = out[:, tokens.shape[1] :].tolist()
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
        return [Timed(up_to_end(t, stop), [], seconds / len(texts), cpu_seconds / len(texts)) for t in texts]


def padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts [B, T], filled up on the left to one length, and the mask [B, T] of what is prompt."""
    width = max(map(len, prompts))
    tokens = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    return tokens, mask


def up_to_end(text: list[int], stop: StopRule) -> list[int]:
    """Without what fills a text up that ended before others of its batch."""
    n = next((i + 1 for i, token in enumerate(text) if token in stop.eos_ids), len(text))
    return text[:n]
