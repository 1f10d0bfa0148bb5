"""transformers' Llama with a checkpoint's weights: what everybody decodes with, as a yardstick."""

import time
import warnings
from typing import Any

import torch

from conf.strict import ConfigError
from eval.load import Checkpoint
from models.hf import to_hf


class Transformers:
    """LlamaForCausalLM, greedy, with its default cache."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> None:
        """Raises ConfigError when transformers is not installed."""
        try:
            import transformers
        except ImportError:
            raise ConfigError(
                "transformers=true: not installed; pip install transformers, or transformers=false"
            ) from None
        size = checkpoint.stored.size
        config = transformers.LlamaConfig(
            hidden_size=size.dim,
            num_hidden_layers=size.n_layers,
            num_attention_heads=size.n_heads,
            num_key_value_heads=size.kv_heads,
            intermediate_size=size.ffn_dim,
            vocab_size=size.vocab_size,
            max_position_embeddings=size.max_seq_len,
            rms_norm_eps=size.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": size.rope_theta},
            tie_word_embeddings=size.tie_embeddings,
            # No token ends a text early, as in ours.
            eos_token_id=None,
            pad_token_id=0,
        )
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
