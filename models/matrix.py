"""A weight matrix and how rows are multiplied with it: the kernel of torch that reads the weight's bytes fastest.

Passes of decoding have one row (a token) or a few (drafted tokens, sequences of a batch), and their time is that of
reading the weights. docs/decoding.md says what was measured.
"""

from functools import cache
from typing import Protocol

import torch

from models.part import Part

FEW_ROWS = 16
"""Up to so many rows the int8 kernel, which converts the weight anew for every few rows, is the faster way."""


class Matrix(Protocol):
    """Multiplies rows [N, in] with a weight of `in` times `out`."""

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in] -> [N, out]."""

    def added(self, residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """`times(x)` plus residual [N, out]."""

    def tensors(self) -> list[torch.Tensor]:
        """What it holds, which is what a product reads."""


class DenseMatrix:
    """The weight in the number format of the rows."""

    def __init__(self, weight: torch.Tensor) -> None:
        """`weight` is [out, in], as models are stored.

        On a CPU it is laid out as [in, out], which is faster for one row (by 3 to 17 % in fp32) and for several (by up
        to a third).
        """
        on_cpu = weight.device.type == "cpu"
        self.weight = weight.t().contiguous() if on_cpu else weight.contiguous().t()
        # The CPU's kernels for matrix products in 16 bits take as long for one row as those in 32.
        x86 = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
        self.sums_rows = on_cpu and x86 and weight.dtype in (torch.bfloat16, torch.float16)

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in] -> [N, out]."""
        return self._weighted_sum(x) if self.sums_rows and len(x) == 1 else torch.mm(x, self.weight)

    def added(self, residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """`times(x)` plus residual [N, out]."""
        if self.sums_rows and len(x) == 1:
            return residual + self._weighted_sum(x)
        return torch.addmm(residual, x, self.weight)

    def tensors(self) -> list[torch.Tensor]:
        """What it holds, which is what a product reads."""
        return [self.weight]

    def _weighted_sum(self, x: torch.Tensor) -> torch.Tensor:
        """[1, in] -> [1, out]: the sum of the weight's rows, each times a number of x, added up in fp32.

        That is what an embedding bag computes, whose kernel fetches rows ahead. One thread does a bag, so that there
        is one for the part of the columns of each thread.
        """
        (n_in, n_out), n_parts = self.weight.shape, torch.get_num_threads()
        n_parts = n_parts if n_out % n_parts == 0 else 1
        indices, offsets = _bags(n_in, n_parts)
        factors = x.expand(n_parts, n_in).reshape(-1)
        parts = self.weight.view(n_in * n_parts, -1)
        return torch.embedding_bag(parts, indices, offsets, False, 0, False, factors)[0].view(1, n_out)


@cache
def _bags(n_in: int, n_parts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which rows of a weight whose columns lie in parts belong to each part, and where each part's indices begin."""
    rows = torch.arange(n_in * n_parts, dtype=torch.int32).view(n_in, n_parts)
    return rows.t().reshape(-1), torch.arange(n_parts, dtype=torch.int32) * n_in


class Int8Matrix:
    """The weight in 8 bits with a scale for each output, the rows in bfloat16: half of bfloat16's bytes to read.

    Rows are not quantised, so that a token's numbers do not depend on which others are in its pass.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        """`weight` is [out, in], at least in fp32."""
        scale = weight.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / 127
        self.weight = (weight / scale).round().to(torch.int8).contiguous()
        self.scale = scale.squeeze(1).to(torch.bfloat16)

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in] -> [N, out]."""
        if len(x) <= FEW_ROWS:
            return torch._weight_int8pack_mm(x, self.weight, self.scale)
        return torch.mm(x, self.weight.to(x.dtype).t()) * self.scale

    def added(self, residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """`times(x)` plus residual [N, out]."""
        return residual + self.times(x)

    def tensors(self) -> list[torch.Tensor]:
        """What it holds, which is what a product reads."""
        return [self.weight, self.scale]


class SummedMatrix:
    """A matrix of whose inputs each rank has a part, so that the ranks' products are added up."""

    def __init__(self, matrix: Matrix, part: Part) -> None:
        self.matrix, self.part = matrix, part

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in of this rank] -> [N, out], the same on all ranks."""
        return self.part.summed(self.matrix.times(x))

    def added(self, residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """`times(x)` plus residual [N, out]."""
        return residual + self.times(x)

    def tensors(self) -> list[torch.Tensor]:
        """What this rank holds."""
        return self.matrix.tensors()


def int8_refusal(device: torch.device) -> str | None:
    """Why weights of 8 bits cannot be used on a device, in a few words; None where they can."""
    try:
        x = torch.ones(1, 64, dtype=torch.bfloat16, device=device)
        Int8Matrix(torch.ones(64, 64, device=device)).times(x)
    except (RuntimeError, AttributeError) as error:
        return f"torch {torch.__version__} has no kernel for it on {device} ({str(error).splitlines()[0]})"
    return None
