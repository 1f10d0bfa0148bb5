"""Names and layouts: our state dict and Hugging Face's Llama, in both directions.

torchtitan's rotary embedding pairs neighbouring channels (2i, 2i+1) of a head, Hugging Face's pairs channel i with
i + head_dim/2. So the rows of the query and key matrices are in another order; everything else only has another name.
"""

import re
from collections.abc import Mapping

import torch

from models.config import ModelConfig

TOP = {
    "tok_embeddings.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
}
LAYER = {
    "attention.qkv_linear.wq.weight": "self_attn.q_proj.weight",
    "attention.qkv_linear.wk.weight": "self_attn.k_proj.weight",
    "attention.qkv_linear.wv.weight": "self_attn.v_proj.weight",
    "attention.wo.weight": "self_attn.o_proj.weight",
    "feed_forward.w1.weight": "mlp.gate_proj.weight",
    "feed_forward.w2.weight": "mlp.down_proj.weight",
    "feed_forward.w3.weight": "mlp.up_proj.weight",
    "attention_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
}
ROTARY = ("wq.weight", "wk.weight")


def hf_name(name: str) -> str:
    """Hugging Face's name of one of our tensors. Raises KeyError for a name that is not ours."""
    layer = re.fullmatch(r"layers\.(\d+)\.(.+)", name)
    return f"model.layers.{layer[1]}.{LAYER[layer[2]]}" if layer else TOP[name]


def our_names(size: ModelConfig) -> list[str]:
    """The names in our state dict for a model of this size; tied models have no head of their own."""
    top = [name for name in TOP if not (size.tie_embeddings and name == "lm_head.weight")]
    return top + [f"layers.{i}.{name}" for i in range(size.n_layers) for name in LAYER]


def shape_of(name: str, size: ModelConfig) -> tuple[int, ...]:
    """The shape of one of our tensors, [out, in] for a matrix. Raises KeyError for a name that is not ours."""
    kv_dim = size.kv_heads * size.head_dim
    shapes = {
        "tok_embeddings.weight": (size.vocab_size, size.dim),
        "lm_head.weight": (size.vocab_size, size.dim),
        "wq.weight": (size.dim, size.dim),
        "wk.weight": (kv_dim, size.dim),
        "wv.weight": (kv_dim, size.dim),
        "wo.weight": (size.dim, size.dim),
        "w1.weight": (size.ffn_dim, size.dim),
        "w2.weight": (size.dim, size.ffn_dim),
        "w3.weight": (size.ffn_dim, size.dim),
    }
    return shapes[name if name in TOP else ".".join(name.split(".")[-2:])] if "norm" not in name else (size.dim,)


def to_half_split(weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Rows of a query or key matrix [heads*head_dim, D] from neighbouring pairs (ours) to split halves (HF)."""
    return weight.view(-1, head_dim // 2, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def to_neighbour_pairs(weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """The inverse of `to_half_split`."""
    return weight.view(-1, 2, head_dim // 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def hf_layout(name: str, tensor: torch.Tensor, size: ModelConfig) -> torch.Tensor:
    """One of our tensors, by our name, in Hugging Face's layout."""
    return to_half_split(tensor, size.head_dim) if name.endswith(ROTARY) else tensor


def our_layout(name: str, tensor: torch.Tensor, size: ModelConfig) -> torch.Tensor:
    """The inverse of `hf_layout`; the same object where nothing changes."""
    return to_neighbour_pairs(tensor, size.head_dim) if name.endswith(ROTARY) else tensor


def to_hf(state_dict: Mapping[str, torch.Tensor], size: ModelConfig) -> dict[str, torch.Tensor]:
    """Our state dict with Hugging Face's names and layouts; bitwise the same numbers.

    Raises ValueError, naming the tensors, when some are missing or unknown.
    """
    names = our_names(size)
    extra = set(state_dict) - set(names) - ({"lm_head.weight"} if size.tie_embeddings else set())
    _check(extra, set(names) - set(state_dict))
    return {hf_name(name): hf_layout(name, state_dict[name], size) for name in names}


def from_hf(state_dict: Mapping[str, torch.Tensor], size: ModelConfig) -> dict[str, torch.Tensor]:
    """Hugging Face's Llama state dict with our names and layouts, the tied head filled in; the inverse of `to_hf`.

    Raises ValueError, naming the tensors, when some are missing or unknown.
    """
    names = {hf_name(name): name for name in our_names(size)}
    extra = {name for name in set(state_dict) - set(names) if not name.endswith("rotary_emb.inv_freq")}
    if size.tie_embeddings:
        extra.discard("lm_head.weight")
    _check(extra, set(names) - set(state_dict))
    ours = {name: our_layout(name, state_dict[hf], size) for hf, name in names.items()}
    if size.tie_embeddings:
        ours["lm_head.weight"] = ours["tok_embeddings.weight"]
    return ours


def _check(unknown: set[str], missing: set[str]) -> None:
    for what, names in (("unknown", unknown), ("missing", missing)):
        if names:
            raise ValueError(f"{what} tensors: {', '.join(sorted(names))}")
