"""Our own product of a few rows with a weight on a CPU (few_rows.c): decoding's passes, which wait for weights.

Kernels of torch read the weight for one row as fast as memory allows in fp32 alone, and take twice as long for five
rows. Ours take 1.2 times as long for five, and in bf16 half as long as in fp32. docs/results/bandwidth.md measures it.
"""

import ctypes
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from models.matrices.c_library import NoLibraryError, c_library

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_suffix(".c")
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
"""Number formats of a weight, as the C code numbers them. Rows are in the weight's own, beside int8 in bf16."""
FEWEST_OUTPUTS = 4
FEW_ROWS = {torch.float32: 48, torch.bfloat16: 12, torch.int8: 16}
"""Up to so many rows it is the faster way, by the weight's number format."""

FewRows = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
"""(rows [N, in], residual [N, out] or None) -> [N, out], their product with a weight plus the residual."""


def few_rows(weight: torch.Tensor, scale: torch.Tensor | None = None) -> FewRows | None:
    """The product with a weight; None where there is none, for its shape, its number format, or this machine.

    What a row gets is the same bit for bit whatever the others are. It is added up in fp32 and rounded once.

    Args:
        weight: [out, in] on a CPU, contiguous.
        scale: [out] fp32, what each output is multiplied with, of an int8 weight.
    """
    if weight.device.type != "cpu" or weight.dtype not in KINDS or len(weight) < FEWEST_OUTPUTS:
        return None
    if (library := _library()) is None or weight.shape[1] % library.step():
        return None
    assert weight.is_contiguous()
    scale = None if scale is None else scale.contiguous()
    assert (scale is not None) == (weight.dtype is torch.int8)
    kind, call, (n_out, n_in), threads = KINDS[weight.dtype], library.few_rows, weight.shape, torch.get_num_threads
    at, scale_at = weight.data_ptr(), None if scale is None else scale.data_ptr()
    dtype = torch.bfloat16 if scale is not None else weight.dtype

    def product(
        x: torch.Tensor, residual: torch.Tensor | None, _alive: tuple[object, object] = (weight, scale)
    ) -> torch.Tensor:
        x, n_rows = x.contiguous(), len(x)
        assert x.dtype is dtype
        out, added = x.new_empty(n_rows, n_out), None
        if residual is not None:
            residual = residual.contiguous()
            assert residual.dtype is dtype
            added = residual.data_ptr()
        if call(kind, x.data_ptr(), n_rows, at, scale_at, n_out, n_in, added, out.data_ptr(), threads()):
            raise MemoryError("a product of a few rows found no memory")
        return out

    return product


def no_kernel(x: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
    """In place of the product where there is none."""
    raise NotImplementedError


@cache
def _library() -> ctypes.CDLL | None:
    try:
        library = c_library(SOURCE)
    except NoLibraryError as why:
        logger.warning("decoding on the CPU takes up to twice as long without our own kernels: %s", why)
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_long
    library.few_rows.argtypes = [
        *(ctypes.c_int, pointer, number, pointer, pointer, number, number),
        *(pointer, pointer, ctypes.c_int),
    ]
    return library
