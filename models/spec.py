"""Our sizes as torchtitan wants to see them: a ModelSpec with every layer's modules and initialisers."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torchtitan.models.common import ComplexRoPE, Embedding, Linear, RMSNorm
from torchtitan.models.common.config_utils import make_ffn_config, make_gqa_config
from torchtitan.models.common.param_init import depth_scaled_std, skip_param_init
from torchtitan.models.llama3.model import Llama3TransformerBlock
from torchtitan.protocols.model_spec import ModelSpec

from models.config import ModelConfig
from models.llama import CausalAttention, LayerSkipLlama
from models.parallelize import parallelize

Initialisers = dict[str, Callable]


def whole(initialise: Callable, weight: torch.Tensor) -> None:
    """Initialise a sharded weight as the whole it is part of: the same numbers for every number of ranks.

    All ranks draw the whole from the same seed and keep their shard. DTensor's own random operators know no CPU mesh:
    there each rank would fill its shard alike.
    """
    if not isinstance(weight, DTensor):
        initialise(weight)
        return
    full = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)
    initialise(full)
    weight.copy_(distribute_tensor(full, weight.device_mesh, weight.placements, src_data_rank=None))


def _initialiser(initialise: Callable) -> Initialisers:
    return {"weight": partial(whole, initialise)}


def _normal(std: float) -> Initialisers:
    return _initialiser(partial(nn.init.trunc_normal_, std=std, a=-3 * std, b=3 * std))


def _norm(size: ModelConfig) -> RMSNorm.Config:
    return RMSNorm.Config(normalized_shape=size.dim, eps=size.norm_eps, param_init=_initialiser(nn.init.ones_))


def _rope(size: ModelConfig) -> ComplexRoPE.Config:
    return ComplexRoPE.Config(
        dim=size.head_dim,
        max_seq_len=size.max_seq_len,
        theta=size.rope_theta,
        scaling="none" if size.rope_factor == 1.0 else "llama",
        scaling_factor=size.rope_factor,
        low_freq_factor=size.rope_low_freq_factor,
        high_freq_factor=size.rope_high_freq_factor,
        original_max_position_embeddings=size.rope_original_seq_len,
    )


def _block(size: ModelConfig, layer: int) -> Llama3TransformerBlock.Config:
    """Block l. What writes into the residual stream is initialised smaller with depth, as torchtitan's Llama 3."""
    writes_residual = _normal(depth_scaled_std(0.02, layer))
    return Llama3TransformerBlock.Config(
        attention_norm=_norm(size),
        ffn_norm=_norm(size),
        attention=make_gqa_config(
            dim=size.dim,
            n_heads=size.n_heads,
            n_kv_heads=size.kv_heads,
            wqkv_param_init=_normal(0.02),
            wo_param_init=writes_residual,
            # Plain causal attention over the packed row: FlexAttention has no backward on a CPU, and a sliced
            # BlockMask cannot follow the kept rows.
            inner_attention=CausalAttention.Config(),
            fuse_qkv=True,
            rope=_rope(size),
        ),
        feed_forward=make_ffn_config(
            dim=size.dim, hidden_dim=size.ffn_dim, w1_param_init=_normal(0.02), w2w3_param_init=writes_residual
        ),
    )


def llama_config(size: ModelConfig) -> LayerSkipLlama.Config:
    """Torchtitan's model config for a size."""
    # With tied matrices the LM head's initialiser decides for both.
    # As large as what the first blocks add to it: an embedding of std 1 (torchtitan's) would drown the early exits.
    embedding_init = {"weight": skip_param_init} if size.tie_embeddings else _normal(0.02)
    return LayerSkipLlama.Config(
        dim=size.dim,
        vocab_size=size.vocab_size,
        enable_weight_tying=size.tie_embeddings,
        tok_embeddings=Embedding.Config(
            num_embeddings=size.vocab_size, embedding_dim=size.dim, param_init=embedding_init
        ),
        norm=_norm(size),
        lm_head=Linear.Config(in_features=size.dim, out_features=size.vocab_size, param_init=_normal(size.dim**-0.5)),
        layers=[_block(size, layer) for layer in range(size.n_layers)],
    )


def model_spec(size: ModelConfig) -> ModelSpec:
    """The model, how it is parallelised, and nothing else: pipeline stages cannot have exits."""
    return ModelSpec(
        name="layerskip_llama",
        flavor=size.name,
        model=llama_config(size),
        parallelize_fn=parallelize,
        pipelining_fn=None,
        post_optimizer_build_fn=None,
        state_dict_adapter=None,
    )
