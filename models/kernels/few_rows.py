"""Our own product of a few rows with a weight on a CPU (few_rows.c): decoding's passes, which wait for weights.

Kernels of torch read the weight for one row as fast as memory allows in fp32 alone, and take twice as long for five
rows. Ours take 1.2 times as long for five, and in bf16 half as long as in fp32. docs/results/bandwidth.md measures it.
"""

import ctypes

import torch

from models.kernels.library import library

KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
"""Number formats of a weight, as the C code numbers them. Rows are in the weight's own, beside int8 in bf16."""
FEWEST_OUTPUTS = 4
FEW_ROWS = {torch.float32: 48, torch.bfloat16: 16, torch.int8: 24}
"""Up to so many rows it is the faster way, by the weight's number format."""


class Norm:
    """An RMSNorm before a product: x * weight / |x, floor|, or without the weight."""

    class _Struct(ctypes.Structure):
        _fields_ = (("floor", ctypes.c_float), ("weight", ctypes.c_void_p))

    def __init__(self, floor: float, weight: torch.Tensor | None) -> None:
        """`floor` is sqrt(D * eps); `weight` [in] on the CPU, with sqrt(D) in it."""
        self.weight = None if weight is None else weight.float().contiguous()
        self.struct = self._Struct(floor, None if self.weight is None else self.weight.data_ptr())
        self.at = ctypes.addressof(self.struct)


class FewRows:
    """The product of few rows with a weight; `few_rows` makes it where there is one."""

    def __init__(self, library: ctypes.CDLL, weight: torch.Tensor, scale: torch.Tensor | None) -> None:
        self.weight, self.scale = weight, scale  # what is read is kept alive
        self.call, self.kind, self.most = library.few_rows, KINDS[weight.dtype], FEW_ROWS[weight.dtype]
        self.n_out, self.n_in = weight.shape
        self.dtype = weight.dtype if scale is None else torch.bfloat16
        self.at, self.scale_at = weight.data_ptr(), None if scale is None else scale.data_ptr()

    def takes(self, x: torch.Tensor) -> bool:
        """Whether it is the way to multiply these rows."""
        return len(x) <= self.most and not torch.compiler.is_compiling()

    def __call__(self, x: torch.Tensor, residual: torch.Tensor | None, norm: Norm | None = None) -> torch.Tensor:
        """(rows [N, in], residual [N, out] or None) -> [N, out], the product of the rows, or normed rows, plus it."""
        x, n_rows = x.contiguous(), len(x)
        assert x.dtype is self.dtype
        out, added = x.new_empty(n_rows, self.n_out), None
        if residual is not None:
            residual = residual.contiguous()
            assert residual.dtype is self.dtype
            added = residual.data_ptr()
        sizes, normed = (self.n_out, self.n_in), None if norm is None else norm.at
        end = (added, out.data_ptr(), normed, torch.get_num_threads())
        if self.call(self.kind, x.data_ptr(), n_rows, self.at, self.scale_at, *sizes, *end):
            raise MemoryError("a product of a few rows found no memory")
        return out


def few_rows(weight: torch.Tensor, scale: torch.Tensor | None = None) -> FewRows | None:
    """The product with a weight; None where there is none, for its shape, its number format, or this machine.

    What a row gets is the same bit for bit whatever the others are. It is added up in fp32 and rounded once.

    Args:
        weight: [out, in] on a CPU, contiguous.
        scale: [out] fp32, contiguous, what each output is multiplied with, of an int8 weight.
    """
    if weight.device.type != "cpu" or weight.dtype not in KINDS or len(weight) < FEWEST_OUTPUTS:
        return None
    if (kernels := library()) is None or weight.shape[1] % kernels.step():
        return None
    assert weight.is_contiguous()
    assert (scale is not None) == (weight.dtype is torch.int8)
    return FewRows(kernels, weight, scale)
