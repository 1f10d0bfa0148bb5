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
from models.kvq_cache import KVQCache
from models.rotary import frequencies

# Masks of so many widths of a pass are kept for the next one.
MASKS_KEPT = 16


class _Block(NamedTuple):
    """Weights of a block [in, out], views of [out, in]; those of its norms are folded into what reads them."""

    wqkv: torch.Tensor
    wo: torch.Tensor
    w13: torch.Tensor
    w2: torch.Tensor


class _Pass(NamedTuple):
    """What all blocks of a pass share."""

    batch: int
    n_tokens: int
    positions: torch.Tensor
    rotation: torch.Tensor
    mask: torch.Tensor | None


class InferenceLlama:
    """A decoder over a `KVQCache`. Each weight is stored once; a tied head is the embedding's matrix."""

    def __init__(
        self, size: ModelConfig, weights: Mapping[str, torch.Tensor], *, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Fuse the weights of our state dict (the names of models/storage/hf.py)."""
        self.size, self.dtype, self.device = size, dtype, device
        # Angles of late positions need more than 16 bits.
        self.real_dtype = torch.promote_types(dtype, torch.float32)
        # On a CPU rms_norm runs as ten kernels, which take longer than the work they do; in 16 bits it rounds less.
        self.few_kernels = device.type == "cpu" and dtype is self.real_dtype
        self.eps = torch.tensor(size.norm_eps, dtype=dtype, device=device)

        def get(name: str) -> torch.Tensor:
            # Folding happens in at least fp32, so that a low-precision weight is rounded once.
            return weights[name].detach().to(device, self.real_dtype)

        self.embedding = get("tok_embeddings.weight").to(dtype)
        # The final norm's weight is folded into the head as well, unless the head is the embedding's matrix.
        self.norm = get("norm.weight").to(dtype) if size.tie_embeddings else None
        untied = None if size.tie_embeddings else (get("lm_head.weight") * get("norm.weight")).to(dtype)
        self.head = self.embedding if untied is None else untied
        self.blocks = [self._fuse(get, f"layers.{i}.") for i in range(size.n_layers)]
        self.rotations = self._rotations()
        self.masks: dict[int, torch.Tensor] = {}

    def _fuse(self, get: Callable[[str], torch.Tensor], prefix: str) -> _Block:
        attention, mlp = get(prefix + "attention_norm.weight"), get(prefix + "ffn_norm.weight")
        q, k, v = (get(f"{prefix}attention.qkv_linear.w{x}.weight") for x in "qkv")
        gate, up = get(prefix + "feed_forward.w1.weight"), get(prefix + "feed_forward.w3.weight")
        # The scale of the attention's scores is the query's.
        q = q * self.size.head_dim**-0.5
        return _Block(
            wqkv=torch.cat([q, k, v]).mul_(attention).to(self.dtype).t(),
            wo=get(prefix + "attention.wo.weight").to(self.dtype).t(),
            w13=torch.cat([gate, up]).mul_(mlp).to(self.dtype).t(),
            w2=get(prefix + "feed_forward.w2.weight").to(self.dtype).t(),
        )

    def _rotations(self) -> torch.Tensor:
        """e^(i * position * frequency): complex [S, 1, head_dim/2], in at least complex64."""
        angles = torch.outer(torch.arange(self.size.max_seq_len, dtype=torch.float64), frequencies(self.size))
        table = torch.polar(torch.ones_like(angles), angles).unsqueeze(1)
        return table.to(self.device, self.real_dtype.to_complex())

    def new_cache(self, max_len: int, batch_size: int = 1) -> KVQCache:
        """An empty cache for this model."""
        return KVQCache(self.size, max_len, batch_size, dtype=self.dtype, device=self.device)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """[B, T] int64 -> x_0 [B, T, D]."""
        return F.embedding(tokens, self.embedding)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """g(x): final norm and head; [..., D] -> [..., V]."""
        normed = self._normed(x) if self.norm is None else self._normed(x) * self.norm
        return F.linear(normed, self.head)

    def run(self, x: torch.Tensor, cache: KVQCache, positions: torch.Tensor, end: int, layers: range) -> torch.Tensor:
        """Run some blocks on T tokens at successive positions, reading and writing their keys and values.

        Args:
            x: [B, T, D], the input of the first of the blocks.
            cache: what the tokens before have left; what it has at `positions` and later is overwritten.
            positions: [T] int64 on the model's device, ascending by 1; the same for all B.
            end: the last of them plus 1, which the host knows without waiting for the device.
            layers: which blocks, ascending by 1.

        Returns:
            [B, T, D], the output of the last of the blocks.
        """
        batch, n_tokens, dim = x.shape
        kv = cache.kv[layers.start : layers.stop]
        keys, values = kv[:, :, : self.size.kv_heads, :end], kv[:, :, self.size.kv_heads :, :end]
        pass_ = _Pass(batch, n_tokens, positions, self._rotation(positions), self._mask(n_tokens, end))
        x = x.reshape(batch * n_tokens, dim)
        # unbind makes the views of all layers in one call.
        for layer, written, k, v in zip(layers, kv.unbind(), keys.unbind(), values.unbind(), strict=True):
            x = self._block(x, self.blocks[layer], written, k, v, pass_)
        return x.view(batch, n_tokens, dim)

    def _normed(self, x: torch.Tensor) -> torch.Tensor:
        """RMSNorm without its weight; [..., D] -> [..., D]."""
        if not self.few_kernels:
            return F.rms_norm(x, (self.size.dim,), None, self.size.norm_eps)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x * torch.addcmul(self.eps, length, length, value=1 / self.size.dim).rsqrt_()

    def _rotation(self, positions: torch.Tensor) -> torch.Tensor:
        """[T, H+2K, head_dim/2] complex: queries and keys turn with their position; values, beside them, do not."""
        turn, size = self.rotations[positions], self.size
        still = torch.ones_like(turn).expand(-1, size.kv_heads, -1)
        return torch.cat([turn.expand(-1, size.n_heads + size.kv_heads, -1), still], 1)

    def _mask(self, n_tokens: int, end: int) -> torch.Tensor | None:
        """[T, end], 0 where a token may look and -inf where not; None for one token and for a whole prompt."""
        if n_tokens in (1, end):
            return None
        if n_tokens not in self.masks:
            # All but the last T columns are 0: aligned at its right end, one mask serves every position.
            mask = torch.zeros(n_tokens, self.size.max_seq_len, dtype=self.dtype, device=self.device)
            mask[:, -n_tokens:] = torch.full((n_tokens, n_tokens), float("-inf")).triu_(1)
            self.masks = {n_tokens: mask, **dict(list(self.masks.items())[:MASKS_KEPT])}
        return self.masks[n_tokens][:, self.size.max_seq_len - end :]

    def _block(
        self, x: torch.Tensor, block: _Block, kv: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, pass_: _Pass
    ) -> torch.Tensor:
        """One block on x [B * T, D].

        kv [B, 2K, S, head_dim] is this layer's part of the cache, keys and values [B, K, end, head_dim] are what of it
        may be looked at.
        """
        qkv = torch.mm(self._normed(x), block.wqkv)
        # Neighbouring channels are the real and imaginary part of a number; the rotation multiplies it.
        pairs = qkv if qkv.dtype is self.real_dtype else qkv.to(self.real_dtype)
        pairs = torch.view_as_complex(pairs.view(pass_.batch, pass_.n_tokens, -1, self.size.head_dim // 2, 2))
        turned = torch.view_as_real(pairs * pass_.rotation).flatten(-2)
        turned = turned if turned.dtype is self.dtype else turned.to(self.dtype)
        kv.index_copy_(2, pass_.positions, turned[:, :, self.size.n_heads :].transpose(1, 2))
        attended = self._attend(turned[:, :, : self.size.n_heads], keys, values, pass_)
        x = torch.addmm(x, attended, block.wo)
        gate_up = torch.mm(self._normed(x), block.w13)
        gate, up = gate_up[:, : self.size.ffn_dim], gate_up[:, self.size.ffn_dim :]
        return torch.addmm(x, F.silu(gate) * up, block.w2)

    def _attend(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, pass_: _Pass) -> torch.Tensor:
        """Attention of q [B, T, H, head_dim] -> [B * T, H * head_dim]."""
        (batch, n_tokens, n_heads, head_dim), kv_heads = q.shape, self.size.kv_heads
        if n_tokens == 1:
            # The heads that share keys are so many queries of one head.
            q = q.view(batch, kv_heads, n_heads // kv_heads, head_dim)
            return F.scaled_dot_product_attention(q, keys, values, scale=1.0).view(batch, -1)
        attended = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            keys,
            values,
            attn_mask=pass_.mask,
            is_causal=pass_.mask is None,
            scale=1.0,
            enable_gqa=n_heads != kv_heads,
        )
        return attended.transpose(1, 2).reshape(batch * n_tokens, -1)
