"""Tokens drawn from logits on a CPU, and drafts that stand for such draws, each in one call (draws.c).

Through torch's operations they take as long as a block of a small model, or as several.
"""

import ctypes

import torch

from models.kernels.library import library


def uniforms(n: int, generator: torch.Generator) -> torch.Tensor:
    """What n tokens are drawn with: [n] float64, uniform in [0, 1); the same at once as one by one."""
    return torch.rand(n, dtype=torch.float64, device=generator.device, generator=generator)


def draws_from(logits: torch.Tensor) -> bool:
    """Whether it is the way to draw from these."""
    on_cpu = logits.device.type == "cpu" and logits.dtype in (torch.float32, torch.bfloat16)
    return on_cpu and library() is not None and not torch.compiler.is_compiling()


def draw(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A token [1] int64 from logits [V], and the distribution [V] fp32 it was drawn from."""
    kernels, logits, p = library(), logits.contiguous(), torch.empty(len(logits))
    assert kernels
    u, narrow = uniforms(1, generator).item(), logits.dtype is torch.bfloat16
    token = kernels.draw_token(logits.data_ptr(), narrow, len(logits), temperature, u, p.data_ptr())
    return torch.tensor([token]), p


def accept(
    drafted: torch.Tensor, q: torch.Tensor, logits: torch.Tensor, temperature: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """How many of drafted tokens [d] that were drawn from q [d, V] stand, a scalar; and the token [1] after them.

    `logits` [d+1, V] are the full model's, before each drafted token and after the last.
    """
    kernels, logits, d = library(), logits.contiguous(), len(drafted)
    assert kernels
    drafted, q, after = drafted.contiguous(), q.to(torch.float32).contiguous(), ctypes.c_int64()
    u, u_after = torch.rand(d, generator=generator), uniforms(1, generator).item()
    narrow, room = logits.dtype is torch.bfloat16, torch.empty(logits.shape[-1])
    n = kernels.accept_drafts(
        *(logits.data_ptr(), narrow, len(room), temperature, d, drafted.data_ptr(), q.data_ptr()),
        *(u.data_ptr(), u_after, room.data_ptr(), ctypes.byref(after)),
    )
    return torch.tensor(n), torch.tensor([after.value])
