"""config.json of Hugging Face's Llama: to our sizes, refusing what we do not compute, and from them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conf.errors import reason
from models.config import ModelConfig
from models.storage.errors import FormatError

NEEDED = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "ffn_dim",
    "vocab_size": "vocab_size",
}

# Each with the only value that we compute; a missing key has it.
ONLY: dict[str, Any] = {
    "attention_bias": False,
    "mlp_bias": False,
    "hidden_act": "silu",
    "quantization_config": None,
    "partial_rotary_factor": 1.0,
}


def size_of(config: Mapping[str, Any], name: str) -> ModelConfig:
    """Sizes from the content of a config.json; defaults are those of transformers' LlamaConfig.

    Raises FormatError for another architecture, another kind of rotary embedding, biases, quantization, missing keys
    and impossible sizes.
    """
    if config.get("model_type") != "llama":
        raise FormatError(f"config.json: model_type {config.get('model_type')!r} is not 'llama'")
    for key, value in ONLY.items():
        if config.get(key) not in (None, value):
            raise FormatError(f"config.json: {key}={config[key]!r} is not supported")
    if missing := [key for key in NEEDED if not isinstance(config.get(key), int)]:
        raise FormatError(f"config.json: missing or no whole number: {', '.join(missing)}")
    head_dim = config.get("head_dim")
    if head_dim is not None and head_dim * config["num_attention_heads"] != config["hidden_size"]:
        raise FormatError(
            f"config.json: head_dim={head_dim} is not supported: must be hidden_size / num_attention_heads"
        )
    try:
        return ModelConfig(
            name=name,
            **{ours: config[theirs] for theirs, ours in NEEDED.items()},
            n_kv_heads=config.get("num_key_value_heads"),
            max_seq_len=config.get("max_position_embeddings", 2048),
            norm_eps=config.get("rms_norm_eps", 1e-6),
            tie_embeddings=config.get("tie_word_embeddings", False),
            **_rope(config),
        )
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise FormatError(f"config.json: {error}") from None


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Ours of rope_parameters (transformers 5) or of rope_theta and rope_scaling (before). Raises ValueError."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return {"rope_theta": float(theta)}
    if kind != "llama3":
        raise ValueError(f"RoPE type {kind!r} is not supported (default and llama3 are)")
    keys = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    if missing := [key for key in keys if key not in rope]:
        raise ValueError(f"RoPE type llama3 lacks {', '.join(missing)}")
    return {
        "rope_theta": float(theta),
        "rope_factor": float(rope["factor"]),
        "rope_low_freq_factor": float(rope["low_freq_factor"]),
        "rope_high_freq_factor": float(rope["high_freq_factor"]),
        "rope_original_seq_len": int(rope["original_max_position_embeddings"]),
    }


def config_of(size: ModelConfig, *, dtype: str, bos_id: int | None, eos_id: int | None) -> dict[str, Any]:
    """The content of a config.json for a model of this size, which `size_of` reads back as it was."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": size.rope_theta}
    if size.rope_factor != 1.0:
        rope |= {
            "rope_type": "llama3",
            "factor": size.rope_factor,
            "low_freq_factor": size.rope_low_freq_factor,
            "high_freq_factor": size.rope_high_freq_factor,
            "original_max_position_embeddings": size.rope_original_seq_len,
        }
    older = {k: v for k, v in rope.items() if k != "rope_theta"} if size.rope_factor != 1.0 else None
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": size.dim,
        "num_hidden_layers": size.n_layers,
        "num_attention_heads": size.n_heads,
        "num_key_value_heads": size.kv_heads,
        "head_dim": size.head_dim,
        "intermediate_size": size.ffn_dim,
        "vocab_size": size.vocab_size,
        "max_position_embeddings": size.max_seq_len,
        "rms_norm_eps": size.norm_eps,
        "rope_parameters": rope,
        # For what reads the form of before transformers 5 (vLLM, llama.cpp, older transformers).
        "rope_theta": size.rope_theta,
        "rope_scaling": older,
        "tie_word_embeddings": size.tie_embeddings,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": bos_id,
        "eos_token_id": eos_id,
        "dtype": dtype,
        "torch_dtype": dtype,
    }


def read_config(folder: Path) -> dict[str, Any]:
    """The content of a folder's config.json. Raises FormatError when it is none."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{folder}/config.json: cannot be read ({reason(error)})") from None
    if not isinstance(config, dict):
        raise FormatError(f"{folder}/config.json: holds no object")
    return config
