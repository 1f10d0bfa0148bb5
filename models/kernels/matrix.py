"""A weight matrix and how rows are multiplied with it: by the kernel that reads the weight's bytes fastest.

Passes of decoding have one row (a token) or a few (drafted tokens, sequences of a batch), and their time is that of
reading the weights. docs/results/bandwidth.md says what was measured.
"""

from typing import Protocol

import torch

from models.kernels.few_rows import FEW_ROWS, FewRows, few_rows
from models.part import Part


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

    def __init__(self, weight: torch.Tensor, *, ours: bool = True) -> None:
        """`weight` is [out, in]; without `ours` torch's kernels multiply few rows as well."""
        self.weight = weight.contiguous()
        self.few_rows = few_rows(self.weight) if ours else None

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in] -> [N, out]."""
        if self.few_rows and self.few_rows.takes(x):
            return self.few_rows(x, None)
        return torch.mm(x, self.weight.t())

    def added(self, residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """`times(x)` plus residual [N, out]."""
        if self.few_rows and self.few_rows.takes(x):
            return self.few_rows(x, residual)
        return torch.addmm(residual, x, self.weight.t())

    def tensors(self) -> list[torch.Tensor]:
        """What it holds, which is what a product reads."""
        return [self.weight]


class Int8Matrix:
    """The weight in 8 bits with a scale for each output, the rows in bfloat16: half of bfloat16's bytes to read.

    Rows are not quantised, so that a token's numbers do not depend on which others are in its pass.
    """

    def __init__(self, weight: torch.Tensor, *, ours: bool = True) -> None:
        """`weight` is [out, in], at least in fp32; without `ours` torch's kernel multiplies few rows."""
        scale = weight.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / 127
        self.weight = (weight / scale).round().to(torch.int8).contiguous()
        self.scale = scale.squeeze(1).to(torch.bfloat16)
        self.few_rows = few_rows(self.weight, self.scale.float()) if ours else None

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in] -> [N, out]."""
        if self.few_rows and self.few_rows.takes(x):
            return self.few_rows(x, None)
        if len(x) <= FEW_ROWS[torch.int8]:
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


def few_rows_of(matrix: Matrix) -> FewRows | None:
    """Our own product of a matrix that a single rank multiplies with; None where it has none."""
    return matrix.few_rows if isinstance(matrix, (DenseMatrix, Int8Matrix)) else None


def int8_refusal(device: torch.device) -> str | None:
    """Why weights of 8 bits cannot be used on a device, in a few words; None where they can."""
    try:
        x = torch.ones(1, 64, dtype=torch.bfloat16, device=device)
        Int8Matrix(torch.ones(64, 64, device=device), ours=False).times(x)
    except (RuntimeError, AttributeError) as error:
        return f"torch {torch.__version__} has no kernel for it on {device} ({str(error).splitlines()[0]})"
    return None
