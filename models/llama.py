"""The LayerSkip Llama: torchtitan's Llama 3 decoder, whose forward can leave at several layers and skip rows.

Letters: B rows (sequences) of the micro-batch, T tokens in a row, D width, L layers, X exits asked for, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.distributed.tensor import DTensor, Partial, Replicate
from torch.nn.attention.bias import causal_lower_right
from torchtitan.models.common.attention import ScaledDotProductAttention
from torchtitan.models.llama3.model import Llama3Model

from models import cpu_attention
from models.document_mask import document_mask
from models.layer_dropout import run_on_kept_rows


class CausalAttention(ScaledDotProductAttention):
    """Causal attention over the row or, with a mask (models/document_mask.py), over each document of it.

    Context parallelism gives each rank a part of the row, and knows no masks.
    torchtitan then passes DTensors, for which torch knows CUDA's kernels alone, and those for whole rows on a CPU not
    at all. Here keys and values are gathered, and each rank attends from its tokens to all up to them.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(ScaledDotProductAttention.Config):
        """Adds no fields to torchtitan's; a subclass, so that `build` returns this class."""

    # The arguments' names are those of torchtitan's sharding.
    def forward(
        self,
        q_BLNH: torch.Tensor,  # noqa: N803
        k_BLNH: torch.Tensor,  # noqa: N803
        v_BLNH: torch.Tensor,  # noqa: N803
        **options: Any,
    ) -> torch.Tensor:
        """Attend from [B, T, heads, head_dim]; rank r of a context-parallel group has the r-th part of the T."""
        dtype = q_BLNH.dtype
        if _is_faster_compiled(q_BLNH):
            q, k, v = (t.transpose(1, 2) for t in (q_BLNH, k_BLNH, v_BLNH))
            mask = options.get("attention_masks")
            mask = None if mask is None else mask.to(dtype)
            return cpu_attention.attention(q, k, v, mask, options["scale"]).transpose(1, 2)
        if _is_faster_in_fp32(q_BLNH):
            q_BLNH, k_BLNH, v_BLNH = (t.float() for t in (q_BLNH, k_BLNH, v_BLNH))  # noqa: N806
        return self._attended(q_BLNH, k_BLNH, v_BLNH, options).to(dtype)

    def _attended(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        if (mask := options.get("attention_masks")) is not None:
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
            return F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask.to(q.dtype), scale=options["scale"], enable_gqa=options["enable_gqa"]
            ).transpose(1, 2)
        if not isinstance(q, DTensor):
            return super().forward(q, k, v, **options)
        rank, q = q.device_mesh.get_local_rank(), q.to_local()
        end = q.shape[1] * (rank + 1)
        k, v = (_gathered(t)[:, :end] for t in (k, v))
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            attn_mask=_mask_of_last(q.shape[1], end, q.device),
            scale=options["scale"],
            enable_gqa=options["enable_gqa"],
        )
        return out.transpose(1, 2)


def _is_faster_compiled(q: torch.Tensor) -> bool:
    """Whether ours takes less time than torch's: where it is compiled, up to rows of about 512 tokens."""
    fits = q.device.type == "cpu" and q.dtype.itemsize == 2 and q.shape[1] <= 512 and not isinstance(q, DTensor)
    return fits and torch.compiler.is_compiling()


def _is_faster_in_fp32(q: torch.Tensor) -> bool:
    """Whether torch's CPU kernel takes longer in this dtype: forward and backward with narrow heads, 1.7 times.

    Not of parts of rows, of which what is gathered would be twice as much.
    """
    return q.device.type == "cpu" and q.dtype.itemsize == 2 and q.shape[-1] <= 32 and not isinstance(q, DTensor)


def _mask_of_last(n: int, end: int, device: torch.device) -> torch.Tensor:
    """Causal attention of the last n of `end` tokens; as a name of it for kernels that need no tensor, if possible."""
    if torch.compiler.is_compiling():  # cannot make the named one
        return torch.ones(n, end, dtype=torch.bool, device=device).tril(end - n)
    return causal_lower_right(n, end)


def _gathered(tensor: torch.Tensor) -> torch.Tensor:
    """The whole rows; what each rank's gradient adds to them is summed and goes to the ranks that have the parts."""
    assert isinstance(tensor, DTensor)
    return tensor.redistribute(placements=[Replicate()]).to_local(grad_placements=[Partial()])


class LayerSkipLlama(Llama3Model):
    """Llama 3 with exits. Parameters, names, sharding and checkpoints are those of torchtitan's decoder."""

    @dataclass(kw_only=True, slots=True)
    class Config(Llama3Model.Config):
        """Adds no fields to torchtitan's; a subclass, so that `build` returns this class."""

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor | None = None,
        *,
        document_positions: torch.Tensor | None = None,
        exits: Sequence[int] | None = None,
        kept_rows: Sequence[torch.Tensor | None] | None = None,
        branch_scales: Sequence[float] | None = None,
        visit: Callable[[int, torch.Tensor], None] | None = None,
        read_only_norm: bool = False,
    ) -> torch.Tensor:
        """Run the blocks and return the normed hidden states, or the logits, of the asked exits.

        Args:
            tokens: [B, T] int64.
            positions: [B, T] int64, or None for 0..T-1 in each row.
            document_positions: [B, T] int64, of each token that in its document, from 0: tokens then attend within
                their documents, and these are the positions; None: over the whole row.
            exits: ascending layer indices l whose output x_{l+1} is needed; None: the last layer alone. Blocks above
                the highest of them are not run.
            kept_rows: for each layer, the rows that pass through it (see models.layer_dropout); None: no dropout.
            branch_scales: for each layer, what its branch is multiplied with; None: 1.
            visit: called with an exit's index in `exits` and its normed states [B, T, D] as soon as they exist, so that
                the states of several exits are never held at the same time; the last exit's are then returned alone.
            read_only_norm: gives the final norm's weight the gradient of the last exit alone.

        Returns:
            [X*B, T, D], exit by exit, after the final norm (applied once, over the stack: norm and head are one FSDP
            unit); or [X*B, T, V] through the head, unless the loss has taken the head over (`_skip_lm_head`).
        """
        blocks = list(self.layers.values())
        exits = (len(blocks) - 1,) if exits is None else exits
        x = self.tok_embeddings(tokens)
        mask = None
        if document_positions is not None:
            positions, mask = document_positions, document_mask(document_positions, x.dtype)
        hidden = []
        for layer, block in enumerate(blocks[: exits[-1] + 1]):
            kept = None if kept_rows is None else kept_rows[layer]
            scale = 1.0 if branch_scales is None else branch_scales[layer]
            x = run_on_kept_rows(block, x, kept, positions, scale, mask)
            if layer not in exits:
                continue
            if visit is None:
                hidden.append(x)
            else:
                h = self.norm(x)
                visit(exits.index(layer), h)
        if visit is None and read_only_norm and len(hidden) > 1:
            h = self.norm(hidden.pop())  # first: it gathers the weight where FSDP shards it
            h = torch.cat([self._read_only_norm(torch.cat(hidden), like=h), h])
        elif visit is None:
            h = self.norm(hidden[0] if len(hidden) == 1 else torch.cat(hidden))
        return h if self._skip_lm_head else self.lm_head(h)

    def _read_only_norm(self, x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """The final norm without a gradient of its weight; placed `like` what the norm itself has given.

        On a copy of the D numbers: FSDP may have freed the gathered weight when the backward comes to this.
        """
        h = F.rms_norm(x, self.norm.normalized_shape, self.norm.weight.detach().clone(), self.norm.eps)
        if isinstance(h, DTensor) and isinstance(like, DTensor):
            return h.redistribute(placements=like.placements)
        return h
