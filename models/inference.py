"""The lean Llama for decoding: fused projections, no modules, a preallocated cache, blocks run by range.

Same weights and logits as models/llama.py and transformers' Llama, made for passes of one or a few tokens, where what
costs is the number of operations and the bytes of weights read, not arithmetic.

Letters: B sequences, T tokens of a pass, S positions in the cache, D width, K key/value heads, V vocabulary.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F

from models.config import ModelConfig
from models.kernels.few_blocks import FewBlocks, few_blocks
from models.kernels.few_rows import Norm
from models.kernels.few_tokens import FewTokens, few_tokens
from models.kernels.matrix import DenseMatrix, Int8Matrix, Matrix, SummedMatrix, few_rows_of
from models.kv_cache import KVCache, LayeredKVCache
from models.part import Part
from models.rotary import frequencies

# Masks of so many widths of a pass are kept for the next one.
MASKS_KEPT = 16
PREFILL_CHUNK = 512
"""Tokens of a text that pass through the blocks at once, at most, unless the caller says otherwise."""
ROTATIONS_AHEAD = 64
"""Successive positions whose rotations are laid out at once for the short passes that follow."""


class _Block(NamedTuple):
    """Weights of a block; those of its norms are folded into what reads them."""

    wqkv: Matrix
    wo: Matrix
    w13: Matrix
    w2: Matrix


class _Pass(NamedTuple):
    """What all blocks of a pass share."""

    batch: int
    n_tokens: int
    positions: torch.Tensor | None
    """[B, T] where each row has its own."""
    rotation: torch.Tensor
    mask: torch.Tensor | None


class InferenceLlama:
    """A decoder over a `KVCache`. Each weight is stored once; a tied head is the embedding's matrix."""

    def __init__(
        self,
        size: ModelConfig,
        weights: Mapping[str, torch.Tensor],
        *,
        dtype: torch.dtype,
        device: torch.device,
        int8: bool = False,
        part: Part | None = None,
        prefill_chunk: int = PREFILL_CHUNK,
        our_kernels: bool = True,
        draft_ids: torch.Tensor | None = None,
    ) -> None:
        """Fuse the weights of our state dict (the names of models/storage/hf.py).

        Args:
            size: of the whole model.
            weights: of the whole model; each is read when it is its turn.
            dtype: of what is computed and cached, and of the weights.
            device: that computes.
            int8: hold the matrices in 8 bits; dtype must be bfloat16.
            part: what of each matrix this rank holds; None: all of it.
            prefill_chunk: tokens of a row that pass through the blocks at once, at most.
            our_kernels: run short passes on a CPU with models/kernels instead of torch's kernels.
            draft_ids: [N] int64, the tokens that drafts are chosen from, which have a smaller head of their own; None:
                all.
        """
        self.size, self.dtype, self.device = size, dtype, device
        self.part, self.prefill_chunk = part or Part(), prefill_chunk
        self.part_size = self.part.size_of(size)
        self.matrix: Callable[[torch.Tensor], Matrix] = lambda weight: (
            Int8Matrix(weight, ours=our_kernels) if int8 else DenseMatrix(weight.to(dtype), ours=our_kernels)
        )
        # Angles of late positions need more than 16 bits.
        self.real_dtype = torch.promote_types(dtype, torch.float32)
        # Asked for in every block of every pass, where a look-up takes as long as a small kernel.
        self.on_cpu, self.rounds = device.type == "cpu", dtype is not self.real_dtype
        # On a GPU the one fast kernel whose queries may share keys takes 16 bits alone.
        self.expands_heads = device.type == "cuda" and dtype is self.real_dtype
        self.complex_dtype = self.real_dtype.to_complex()
        # RMSNorm as x / hypot(|x|, sqrt(D * eps)), which is three short kernels; sqrt(D) is a factor of the weights.
        self.norm_gain = size.dim**0.5 if self.on_cpu else 1.0
        self.floor = torch.tensor((size.dim * size.norm_eps) ** 0.5, dtype=self.real_dtype, device=device)

        def get(name: str) -> torch.Tensor:
            # Folding happens in at least fp32, so that a low-precision weight is rounded once.
            weight = weights[name].detach().to(device, self.real_dtype)
            return weight * self.norm_gain if name.endswith("norm.weight") else weight

        self._read_heads(get, draft_ids)
        self.blocks = [self._fuse(get, f"layers.{i}.") for i in range(size.n_layers)]
        self.rotations = self._rotations()
        self.few_blocks = self._few_blocks()
        self.few_tokens = few_tokens(self.few_blocks, self.embedding, few_rows_of(self.head), self.head_norm, None)
        self.few_drafts = self._few_drafts()
        self.real_rotations = torch.view_as_real(self.rotations)
        self.still = torch.tensor([1.0, 0.0], dtype=self.real_dtype, device=device)
        self.numbers = torch.arange(len(self.rotations), device=device)
        self.masks: dict[int, torch.Tensor] = {}
        self.ahead, self.rotations_ahead = range(0), self.rotations[:0]

    def _read_heads(self, get: Callable[[str], torch.Tensor], draft_ids: torch.Tensor | None) -> None:
        """The embedding, the final norm, the head and the one of drafts."""
        size = self.size
        # The final norm's weight is folded into the head as well, unless the head is the embedding's matrix.
        self.norm = get("norm.weight").to(self.dtype) if size.tie_embeddings else None
        self.head_norm = Norm(self.floor.item(), self.norm)
        rows = get("tok_embeddings.weight") if size.tie_embeddings else get("lm_head.weight") * get("norm.weight")
        self.head = self.matrix(self.part.rows(rows))
        # Every rank has all of the drafts': it is small, and a draft need not wait for what the others have found.
        self.draft_ids = None if draft_ids is None else draft_ids.to(self.device)
        self.draft_head = None if self.draft_ids is None else self.matrix(rows[self.draft_ids])
        if size.tie_embeddings and isinstance(self.head, DenseMatrix):
            # One matrix for both, since the head's is of numbers that can be looked up.
            [self.embedding] = self.head.tensors()
            return
        if not size.tie_embeddings:
            rows = get("tok_embeddings.weight")  # of the head's nothing is kept in fp32 meanwhile
        self.embedding = self.part.rows(rows).to(self.dtype)

    def matrices(self) -> Iterator[Matrix]:
        """The head and all of the blocks' matrices."""
        yield self.head
        for block in self.blocks:
            yield from block

    def _fuse(self, get: Callable[[str], torch.Tensor], prefix: str) -> _Block:
        attention, mlp = get(prefix + "attention_norm.weight"), get(prefix + "ffn_norm.weight")
        q, k, v = (self.part.rows(get(f"{prefix}attention.qkv_linear.w{x}.weight")) for x in "qkv")
        gate, up = (self.part.rows(get(f"{prefix}feed_forward.w{x}.weight")) for x in "13")
        # The scale of the attention's scores is the query's.
        q = q * self.size.head_dim**-0.5
        return _Block(
            wqkv=self.matrix(_beside([q, k, v], attention)),
            wo=self._summed(get(prefix + "attention.wo.weight")),
            w13=self.matrix(_beside([gate, up], mlp)),
            w2=self._summed(get(prefix + "feed_forward.w2.weight")),
        )

    def _few_blocks(self) -> FewBlocks | None:
        products = [[few_rows_of(matrix) for matrix in block] for block in self.blocks]
        return few_blocks(self.part_size, products, self.rotations, self.floor.item())

    def _few_drafts(self) -> FewTokens | None:
        """`few_tokens` with the head of drafts."""
        if self.draft_head is None:
            return self.few_tokens
        head = few_rows_of(self.draft_head)
        return few_tokens(self.few_blocks, self.embedding, head, self.head_norm, self.draft_ids)

    def _summed(self, weight: torch.Tensor) -> Matrix:
        matrix = self.matrix(self.part.columns(weight))
        return matrix if self.part.ranks == 1 else SummedMatrix(matrix, self.part)

    def _rotations(self) -> torch.Tensor:
        """e^(i * position * frequency): complex [S, 1, head_dim/2], in at least complex64."""
        # One position more than the context, for what a row of a batch drafts beyond its room (models/kv_cache.py).
        angles = torch.outer(torch.arange(self.size.max_seq_len + 1, dtype=torch.float64), frequencies(self.size))
        table = torch.polar(torch.ones_like(angles), angles).unsqueeze(1)
        return table.to(self.device, self.complex_dtype)

    def new_cache(self, max_len: int, batch_size: int = 1, *, layered: bool = False) -> KVCache:
        """An empty cache for this model; `layered` for passes that are compiled."""
        kind = LayeredKVCache if layered else KVCache
        return kind(self.part_size, max_len, batch_size, dtype=self.dtype, device=self.device)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """[B, T] int64 -> x_0 [B, T, D]."""
        return self.part.embedded(tokens, self.embedding)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """g(x): final norm and head; [..., D] -> [..., V]."""
        return self.part.gathered(self._read_by(self.head, x)).view(*x.shape[:-1], -1)

    def draft_logits(self, x: torch.Tensor) -> torch.Tensor:
        """`logits` to draft from: -inf for tokens that are not among `draft_ids`; [..., D] -> [..., V]."""
        if self.draft_head is None or self.draft_ids is None:
            return self.logits(x)
        found = self._read_by(self.draft_head, x)
        logits = found.new_full((len(found), self.size.vocab_size), float("-inf"))
        return logits.index_copy_(1, self.draft_ids, found).view(*x.shape[:-1], -1)

    def _read_by(self, head: Matrix, x: torch.Tensor) -> torch.Tensor:
        """The final norm of x [..., D] and a head of N tokens; [..., D] -> [rows, N]."""
        rows = x.reshape(-1, self.size.dim)
        if (ours := few_rows_of(head)) and ours.takes(rows):
            return ours(rows, None, self.head_norm)
        normed = self._normed(rows)
        return head.times(normed if self.norm is None else normed * self.norm)

    def run(self, x: torch.Tensor, cache: KVCache, positions: torch.Tensor, end: int, layers: range) -> torch.Tensor:
        """Run some blocks on T tokens at successive positions, reading and writing their keys and values.

        Args:
            x: [B, T, D], the input of the first of the blocks.
            cache: what the tokens before have left in its first B rows; what it has at `positions` and later is
                overwritten.
            positions: [T] int64 on the model's device, ascending by 1, the same for all B; or [B, T], each row's own.
            end: the largest of them plus 1, which the host knows without waiting for the device. With positions
                [B, T] it may be larger, so that passes at different positions have tensors of one shape.
            layers: which blocks, ascending by 1.

        Returns:
            [B, T, D], the output of the last of the blocks.

        Long texts pass in chunks, so that of the widest tensors (the feed-forward's, the queries') only a chunk exists.
        """
        begin, n_tokens = end - x.shape[1], x.shape[1]
        if n_tokens <= self.prefill_chunk or positions.dim() > 1:
            return self._run(x, cache, positions, end, layers)
        # The first one is the shorter one: at the beginning of a text it needs no mask, and the others share theirs.
        out, first = torch.empty_like(x), (n_tokens - 1) % self.prefill_chunk + 1
        for stop in range(first, n_tokens + 1, self.prefill_chunk):
            at = slice(max(0, stop - self.prefill_chunk), stop)
            out[:, at] = self._run(x[:, at], cache, positions[at], begin + stop, layers)
        return out

    def _run(self, x: torch.Tensor, cache: KVCache, positions: torch.Tensor, end: int, layers: range) -> torch.Tensor:
        """`run` in one pass."""
        if self.few_blocks and self.few_blocks.takes(x.shape[0] * x.shape[1], cache):
            return self.few_blocks(x, cache, positions, layers)
        batch, n_tokens, dim = x.shape
        alike = positions.dim() == 1
        mask = self._mask(n_tokens, end) if alike else self._mask_of_rows(positions, end)
        rotation = self._rotation_at(positions, end) if alike else self._rotation(positions)
        if alike and batch > 1:
            rotation = rotation.repeat(batch, 1)
        pass_ = _Pass(batch, n_tokens, None if alike else positions, rotation, mask)
        x = x.reshape(batch * n_tokens, dim)
        views = cache.views(layers, batch, end, end - n_tokens if alike else None)
        for layer, (written, k, v) in zip(layers, views, strict=True):
            x = self._block(x, self.blocks[layer], written, k, v, pass_)
        return x.view(batch, n_tokens, dim)

    def _normed(self, x: torch.Tensor) -> torch.Tensor:
        """RMSNorm without its weight and, on a CPU, without sqrt(D); [..., D] -> [..., D]."""
        if not self.on_cpu:
            return F.rms_norm(x, (self.size.dim,), None, self.size.norm_eps)
        # On a CPU rms_norm runs as ten kernels, which take longer than the work they do.
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=self.real_dtype)
        normed = x / torch.hypot(length, self.floor)
        return normed.to(self.dtype) if self.rounds else normed

    def _rotation_at(self, positions: torch.Tensor, end: int) -> torch.Tensor:
        """`_rotation` of [T] successive positions up to `end` - 1."""
        begin, n_tokens = end - len(positions), len(positions)
        if n_tokens >= ROTATIONS_AHEAD or torch.compiler.is_compiling():
            return self._rotation(positions)
        if begin < self.ahead.start or end > self.ahead.stop:
            self.ahead = range(begin, min(begin + ROTATIONS_AHEAD, len(self.numbers)))
            self.rotations_ahead = self._rotation(self.numbers[self.ahead.start : self.ahead.stop])
        return self.rotations_ahead.narrow(0, begin - self.ahead.start, n_tokens)

    def _rotation(self, positions: torch.Tensor) -> torch.Tensor:
        """What queries, keys and values [..., T] are multiplied with: complex [... * T, (H+2K) * head_dim/2].

        Queries and keys turn with their position; values beside them do not. For compilers, which know real numbers
        alone, real and imaginary parts [..., T, H+2K, head_dim/2, 2].
        """
        size = self.part_size
        if torch.compiler.is_compiling():
            turn = self.real_rotations[positions]
            still = self.still.expand(*positions.shape, size.kv_heads, *turn.shape[-2:])
            return torch.cat([turn.expand(*positions.shape, size.n_heads + size.kv_heads, -1, -1), still], -3)
        turn = self.rotations[positions]
        turned = turn.expand(*positions.shape, size.n_heads + size.kv_heads, -1)
        both = torch.cat([turned, torch.ones_like(turn).expand(*positions.shape, size.kv_heads, -1)], -2)
        return both.view(positions.numel(), -1)

    def _turned(self, qkv: torch.Tensor, pass_: _Pass) -> torch.Tensor:
        """Queries, keys and values [B * T, (H+2K) * head_dim], rotated; [B, T, H+2K, head_dim].

        Neighbouring channels are the real and imaginary part of a number; the rotation multiplies it.
        """
        qkv = qkv.to(self.real_dtype) if self.rounds else qkv
        shape = (pass_.batch, pass_.n_tokens, -1, self.size.head_dim)
        if torch.compiler.is_compiling():
            (a, b), (cos, sin) = qkv.view(*shape[:-1], shape[-1] // 2, 2).unbind(-1), pass_.rotation.unbind(-1)
            turned = torch.stack([a * cos - b * sin, a * sin + b * cos], -1)
        else:
            turned = (qkv.view(self.complex_dtype) * pass_.rotation).view(self.real_dtype)
        return (turned.to(self.dtype) if self.rounds else turned).view(shape)

    @property
    def _names_masks(self) -> bool:
        """Whether a mask is a name of it, for which a GPU has a kernel in 16 bits that needs no tensor."""
        return self.device.type == "cuda" and not self.expands_heads

    def _mask(self, n_tokens: int, end: int) -> torch.Tensor | None:
        """[T * H/K, end], 0 where a query may look and -inf where not; None for one token and for a whole prompt."""
        if n_tokens in (1, end):
            return None
        if self._names_masks:
            from torch.nn.attention.bias import causal_lower_right  # imports the compiler, which takes a second

            return causal_lower_right(n_tokens, end)
        if n_tokens not in self.masks:
            # All but the last T columns are 0: aligned at its right end, one mask serves every position.
            mask = torch.zeros(n_tokens, self.size.max_seq_len, dtype=self.dtype, device=self.device)
            mask[:, -n_tokens:] = torch.full((n_tokens, n_tokens), float("-inf")).triu_(1)
            mask = mask.repeat(self.part_size.n_heads // self.part_size.kv_heads, 1)
            self.masks = {n_tokens: mask, **dict(list(self.masks.items())[:MASKS_KEPT])}
        return self.masks[n_tokens][:, self.size.max_seq_len - end :]

    def _mask_of_rows(self, positions: torch.Tensor, end: int) -> torch.Tensor:
        """The mask of rows that each have their positions [B, T]: [B, 1, T * H/K, end]."""
        later = self.numbers[:end] > positions.unsqueeze(-1)
        mask = torch.zeros(later.shape, dtype=self.dtype, device=self.device).masked_fill_(later, float("-inf"))
        return mask.repeat(1, self.part_size.n_heads // self.part_size.kv_heads, 1).unsqueeze(1)

    def _block(
        self, x: torch.Tensor, block: _Block, kv: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, pass_: _Pass
    ) -> torch.Tensor:
        """One block on x [B * T, D]; the other tensors are those of `KVCache.views`."""
        n_heads, n_keys, ffn_dim = self.part_size.n_heads, self.part_size.kv_heads, self.part_size.ffn_dim
        turned = self._turned(block.wqkv.times(self._normed(x)), pass_)
        # Narrow takes half as long as a slice.
        new = turned.narrow(2, n_heads, 2 * n_keys)
        if pass_.positions is None:
            kv.copy_(new.transpose(1, 2))
        else:
            kv[self.numbers[: pass_.batch, None], :, pass_.positions] = new
        x = block.wo.added(x, self._attend(turned.narrow(2, 0, n_heads), keys, values, pass_))
        gate_up = block.w13.times(self._normed(x))
        return block.w2.added(x, F.silu(gate_up.narrow(1, 0, ffn_dim)) * gate_up.narrow(1, ffn_dim, ffn_dim))

    def _attend(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, pass_: _Pass) -> torch.Tensor:
        """Attention of q [B, T, H, head_dim] -> [B * T, H * head_dim]."""
        (batch, n_tokens, _, head_dim), kv_heads = q.shape, self.part_size.kv_heads
        # The heads that share keys are so many queries of one head, which every kernel takes.
        if n_tokens == 1:
            q = q.view(batch, kv_heads, -1, head_dim)
            return F.scaled_dot_product_attention(q, keys, values, attn_mask=pass_.mask, scale=1.0).reshape(batch, -1)
        if pass_.mask is None or (pass_.positions is None and self._names_masks):
            return self._attend_causally(q, keys, values, pass_.mask)
        q = (
            q.view(batch, n_tokens, kv_heads, -1, head_dim)
            .permute(0, 2, 3, 1, 4)
            .reshape(batch, kv_heads, -1, head_dim)
        )
        attended = F.scaled_dot_product_attention(q, keys, values, attn_mask=pass_.mask, scale=1.0)
        attended = attended.reshape(batch, kv_heads, -1, n_tokens, head_dim).permute(0, 3, 1, 2, 4)
        return attended.reshape(batch * n_tokens, -1)

    def _attend_causally(
        self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """The same of a whole prompt, or with the name of a mask."""
        n_shared = q.shape[2] // keys.shape[1]
        if n_shared > 1 and self.expands_heads:
            keys, values, n_shared = keys.repeat_interleave(n_shared, 1), values.repeat_interleave(n_shared, 1), 1
        attended = F.scaled_dot_product_attention(
            q.transpose(1, 2), keys, values, attn_mask=mask, is_causal=mask is None, scale=1.0, enable_gqa=n_shared > 1
        )
        return attended.transpose(1, 2).reshape(q.shape[0] * q.shape[1], -1)


def _beside(weights: list[torch.Tensor], norm: torch.Tensor) -> torch.Tensor:
    """Weights [out, in] of the same rows as one, with the weight of their norm folded in."""
    return torch.cat(weights).mul_(norm)
