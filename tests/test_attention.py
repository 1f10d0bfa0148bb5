"""Attention on a CPU in bf16: narrow heads in fp32, or a backward of its own where it is compiled, are faster there.

They must change nothing else.
"""

import pytest
import torch
import torch.nn.functional as F

from models.cpu_attention import attention
from models.document_mask import document_mask
from models.llama import CausalAttention


@pytest.mark.parametrize("head_dim", [32, 64])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_bf16_attends_as_fp32_does(head_dim: int, masked: bool, compiled: bool) -> None:
    """Output and gradients are bf16 and those of an attention in fp32, but for rounding."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 12, heads, head_dim, generator=generator).bfloat16() for heads in (4, 2, 2))
    positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 3]] * 2)
    mask = document_mask(positions, torch.bfloat16) if masked else None
    module = CausalAttention.Config().build()
    if compiled:
        torch.compiler.reset()
        module.compile(fullgraph=True)
    results = []
    for dtype in (torch.bfloat16, torch.float32):
        inputs = [t.detach().to(dtype).requires_grad_() for t in (q, k, v)]
        if dtype == torch.bfloat16:
            options = {"attention_masks": mask} if masked else {}
            out = module(*inputs, scale=head_dim**-0.5, enable_gqa=True, **options)
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


def test_the_backward_that_is_written_out() -> None:
    """In fp64 it is that of three lines; three heads share keys."""
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, heads, 7, 5, generator=generator).double().requires_grad_() for heads in (6, 2, 2))
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2], [0, 1, 2, 3, 4, 5, 6]])
    for mask in (None, document_mask(positions, torch.float64)):
        scores = q @ k.repeat_interleave(3, 1).mT * 0.3
        allowed = torch.full((7, 7), float("-inf")).triu(1) if mask is None else mask
        out = (scores + allowed).softmax(-1) @ v.repeat_interleave(3, 1)
        grad = torch.randn(out.shape, generator=generator).double()
        wanted = torch.autograd.grad(out, (q, k, v), grad)
        ours = attention(q, k, v, mask, 0.3)
        torch.testing.assert_close(ours, out, rtol=1e-6, atol=1e-7)
        for found, gradient in zip(torch.autograd.grad(ours, (q, k, v), grad), wanted, strict=True):
            torch.testing.assert_close(found, gradient, rtol=1e-5, atol=1e-6)
