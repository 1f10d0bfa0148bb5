"""Attention on a CPU in bf16: narrow heads are computed in fp32, which is faster there and must change nothing else."""

import pytest
import torch
import torch.nn.functional as F

from models.document_mask import document_mask
from models.llama import CausalAttention


@pytest.mark.parametrize("head_dim", [32, 64])
@pytest.mark.parametrize("masked", [False, True])
def test_bf16_attends_as_fp32_does(head_dim: int, masked: bool) -> None:
    """Output and gradients are bf16 and those of an attention in fp32, but for rounding."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 12, heads, head_dim, generator=generator).bfloat16() for heads in (4, 2, 2))
    positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 3]] * 2)
    mask = document_mask(positions, torch.bfloat16) if masked else None
    attention = CausalAttention.Config().build()
    results = []
    for dtype in (torch.bfloat16, torch.float32):
        inputs = [t.detach().to(dtype).requires_grad_() for t in (q, k, v)]
        if dtype == torch.bfloat16:
            options = {"attention_masks": mask} if masked else {}
            out = attention(*inputs, scale=head_dim**-0.5, enable_gqa=True, **options)
        else:
            allowed = {"attn_mask": mask.float()} if mask is not None else {"is_causal": True}
            out = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in inputs), enable_gqa=True, **allowed)
            out = out.transpose(1, 2)
        out.float().square().sum().backward()
        gradients = [t.grad for t in inputs]
        assert all(gradient is not None and gradient.dtype == dtype for gradient in gradients)
        results.append([out.detach(), *gradients])
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours.float(), reference, rtol=0.02, atol=0.05)
