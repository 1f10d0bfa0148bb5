"""The lean Llama for decoding: fused projections, no modules, a preallocated cache, blocks run by range.

Same weights and logits as models/llama.py and transformers' Llama, made for passes of one or a few tokens, where what
costs is the number of operations and the bytes of weights read, not arithmetic.

Letters: B sequences, T tokens of a pass, S positions in the cache, D width, K key/value heads, V vocabulary.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F

from models.config import ModelConfig
from models.hf import to_half_split
from models.kvq_cache import KVQCache


class _Block(NamedTuple):
    """Weights of a block; those of its norms are folded into the matrices that read them."""

    wqkv: torch.Tensor
    wo: torch.Tensor
    w13: torch.Tensor
    w2: torch.Tensor


class InferenceLlama:
    """A decoder over a `KVQCache`. Each weight is stored once; a tied head is the embedding's matrix."""

    def __init__(
        self, size: ModelConfig, weights: Mapping[str, torch.Tensor], *, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Fuse the weights of our state dict (the names of models/hf.py)."""
        self.size, self.dtype, self.device = size, dtype, device

        def get(name: str) -> torch.Tensor:
            # Folding happens in at least fp32, so that a low-precision weight is rounded once.
            return weights[name].detach().to(device, torch.promote_types(dtype, torch.float32))

        self.embedding = get("tok_embeddings.weight").to(dtype)
        # The final norm's weight is folded into the head as well, unless the head is the embedding's matrix.
        self.norm = get("norm.weight").to(dtype) if size.tie_embeddings else None
        untied = None if size.tie_embeddings else (get("lm_head.weight") * get("norm.weight")).to(dtype)
        self.head = self.embedding if untied is None else untied
        self.blocks = [self._fuse(get, f"layers.{i}.") for i in range(size.n_layers)]
        self.cos, self.sin = self._rotary_table()

    def _fuse(self, get: Callable[[str], torch.Tensor], prefix: str) -> _Block:
        attention, mlp = get(prefix + "attention_norm.weight"), get(prefix + "ffn_norm.weight")
        q, k, v = (get(f"{prefix}attention.qkv_linear.w{x}.weight") for x in "qkv")
        gate, up = get(prefix + "feed_forward.w1.weight"), get(prefix + "feed_forward.w3.weight")
        q, k = to_half_split(q, self.size.head_dim), to_half_split(k, self.size.head_dim)
        # The scale of the attention's scores is the query's.
        q = q * self.size.head_dim**-0.5
        return _Block(
            wqkv=(torch.cat([q, k, v]) * attention).to(self.dtype),
            wo=get(prefix + "attention.wo.weight").to(self.dtype),
            w13=(torch.cat([gate, up]) * mlp).to(self.dtype),
            w2=get(prefix + "feed_forward.w2.weight").to(self.dtype),
        )

    def _rotary_table(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Cos and signed sin [S, head_dim] for the split-halves layout: x * cos + swap_halves(x) * sin."""
        half = self.size.head_dim // 2
        frequencies = self.size.rope_theta ** -(torch.arange(half, dtype=torch.float64) / half)
        angles = torch.outer(torch.arange(self.size.max_seq_len, dtype=torch.float64), frequencies)
        cos, sin = angles.cos(), angles.sin()
        tables = torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)
        return tables[0].to(self.device, self.dtype), tables[1].to(self.device, self.dtype)

    def new_cache(self, max_len: int, batch_size: int = 1) -> KVQCache:
        """An empty cache for this model."""
        return KVQCache(self.size, max_len, batch_size, dtype=self.dtype, device=self.device)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """[B, T] int64 -> x_0 [B, T, D]."""
        return F.embedding(tokens, self.embedding)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """g(x): final norm and head; [..., D] -> [..., V]."""
        return F.linear(F.rms_norm(x, (self.size.dim,), self.norm, self.size.norm_eps), self.head)

    def run(self, x: torch.Tensor, cache: KVQCache, start: int, layers: range) -> torch.Tensor:
        """Run some blocks on T tokens at positions start .. start+T-1, reading and writing their keys and values.

        Args:
            x: [B, T, D], the input of the first of the blocks.
            cache: what the tokens before have left; positions start and later are overwritten.
            start: position of the first token; the same for all B.
            layers: which blocks, ascending.

        Returns:
            [B, T, D], the output of the last of the blocks.
        """
        n_tokens, end = x.shape[1], start + x.shape[1]
        cos, sin = self.cos[start:end, None], self.sin[start:end, None]
        mask = None if n_tokens == 1 or start == 0 else self._causal(start, end)
        keys, values = cache.keys[:, :, :, :end], cache.values[:, :, :, :end]
        for layer in layers:
            x = self._block(x, self.blocks[layer], keys[layer], values[layer], start, cos, sin, mask)
        return x

    def _causal(self, start: int, end: int) -> torch.Tensor:
        """[T, S] True where token t may look at position s."""
        return torch.ones(end - start, end, dtype=torch.bool, device=self.device).tril_(start)

    def _block(
        self,
        x: torch.Tensor,
        block: _Block,
        keys: torch.Tensor,
        values: torch.Tensor,
        start: int,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """One block; keys and values [B, K, end, head_dim] are this layer's views into the cache."""
        size, (batch, n_tokens, dim) = self.size, x.shape
        qkv = F.linear(F.rms_norm(x, (dim,), None, size.norm_eps), block.wqkv)
        qkv = qkv.view(batch, n_tokens, -1, size.head_dim)
        qk = qkv[:, :, : size.n_heads + size.kv_heads]
        qk = torch.addcmul(qk * cos, qk.roll(size.head_dim // 2, -1), sin)
        q, k = torch.split(qk.transpose(1, 2), [size.n_heads, size.kv_heads], 1)
        keys[:, :, start:] = k
        values[:, :, start:] = qkv[:, :, size.n_heads + size.kv_heads :].transpose(1, 2)
        attended = F.scaled_dot_product_attention(
            q,
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None and n_tokens > 1,
            scale=1.0,
            enable_gqa=size.kv_heads != size.n_heads,
        )
        x = x + F.linear(attended.transpose(1, 2).reshape(batch, n_tokens, dim), block.wo)
        gate, up = F.linear(F.rms_norm(x, (dim,), None, size.norm_eps), block.w13).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, block.w2)
