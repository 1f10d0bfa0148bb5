"""Our own blocks on a few rows on a CPU (few_blocks.c): a pass of decoding as one call.

A block is some thirty operations. Called one by one through torch they take 0.2 to 0.4 ms, most of the time of a small
model and a third of SmolLM2's in bf16. docs/results/bandwidth.md measures it.
"""

import ctypes
from collections.abc import Sequence

import torch

from models.config import ModelConfig
from models.kernels.few_rows import FEWEST_OUTPUTS, KINDS, FewRows
from models.kernels.library import library
from models.kv_cache import KVCache


class _Size(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("dim", "n_heads", "kv_heads", "head_dim", "ffn_dim")]
    _fields_ += [("floor", ctypes.c_float)]


class _Block(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("wqkv", "wo", "w13", "w2")]
    _fields_ += [(f"{name}_scale", ctypes.c_void_p) for name in ("wqkv", "wo", "w13", "w2")]


class Pass(ctypes.Structure):
    """What the C code knows of a pass."""

    _fields_ = [
        ("size", _Size),
        ("kind", ctypes.c_int),
        ("cached", ctypes.c_int),
        ("batch", ctypes.c_long),
        ("tokens", ctypes.c_long),
        ("x", ctypes.c_void_p),
        ("kv", ctypes.c_void_p),
        ("of_layer", ctypes.c_long),
        ("of_row", ctypes.c_long),
        ("of_head", ctypes.c_long),
        ("positions", ctypes.c_void_p),
        ("per_row", ctypes.c_int),
        ("rotations", ctypes.c_void_p),
        ("threads", ctypes.c_int),
    ]


class FewBlocks:
    """The blocks of a model; `few_blocks` makes it where there is one."""

    def __init__(
        self, library: ctypes.CDLL, size: _Size, products: Sequence[Sequence[FewRows]], rotations: torch.Tensor
    ) -> None:
        first = products[0][0]
        self.products, self.rotations = products, rotations  # what is read is kept alive
        self.library, self.most, self.dtype = library, first.most, first.dtype
        self.blocks = (_Block * len(products))(
            *(_Block(*(of.at for of in block), *(of.scale_at for of in block)) for block in products)
        )
        self.size, self.kind, self.cached = size, KINDS[first.weight.dtype], KINDS[first.dtype]

    def takes(self, n_rows: int, kv: KVCache) -> bool:
        """Whether it is the way to run so many tokens, of all texts together, with this cache."""
        if torch.compiler.is_compiling() or type(kv) is not KVCache:
            return False
        # The places of a cache are the outputs of a product with its keys.
        return n_rows <= self.most and kv.max_len >= FEWEST_OUTPUTS

    def __call__(self, x: torch.Tensor, kv: KVCache, positions: torch.Tensor, layers: range) -> torch.Tensor:
        """As InferenceLlama.run: x [B, T, D] at positions [T] or [B, T] through some blocks; [B, T, D]."""
        x = x.clone(memory_format=torch.contiguous_format)  # a pass writes its result over its input
        batch, n_tokens, _ = x.shape
        positions = positions.contiguous()
        pass_ = self.pass_of(x, batch, n_tokens, kv, positions, layers.start)
        begin = ctypes.byref(self.blocks, layers.start * ctypes.sizeof(_Block))
        if self.library.few_blocks(ctypes.byref(pass_), begin, len(layers)):
            raise MemoryError("a pass of a few rows found no memory")
        return x

    def pass_of(
        self, x: torch.Tensor, batch: int, n_tokens: int, kv: KVCache, positions: torch.Tensor, layer: int
    ) -> Pass:
        """A pass of states x, B times T of them, from a layer on. The tensors, contiguous, must outlive it."""
        assert x.dtype is self.dtype
        of_layer, of_row, of_head, of_place, _ = (n * kv.kv.element_size() for n in kv.kv.stride())
        assert of_place == kv.kv.element_size() * kv.kv.shape[-1], "the positions of a head lie one after the other"
        return Pass(
            *(self.size, self.kind, self.cached, batch, n_tokens),
            *(x.data_ptr(), kv.kv.data_ptr() + layer * of_layer, of_layer, of_row, of_head),
            *(positions.data_ptr(), positions.dim() > 1, self.rotations.data_ptr(), torch.get_num_threads()),
        )


def few_blocks(
    size: ModelConfig, products: Sequence[Sequence[FewRows | None]], rotations: torch.Tensor, floor: float
) -> FewBlocks | None:
    """The blocks of a model; None where a block's products are not ours, or its shape is not for us.

    Args:
        size: of what the blocks hold.
        products: of each block with wqkv, wo, w13 and w2.
        rotations: [S, 1, head_dim/2] complex64 on the CPU, contiguous, by position.
        floor: what a norm adds to the length of a row: sqrt(D * eps).
    """
    ours = [[product for product in block if product] for block in products]
    if not ours or any(len(block) < 4 for block in ours) or rotations.dtype is not torch.complex64:
        return None
    if (kernels := library()) is None or any(n % kernels.step() for n in (size.dim, size.head_dim, size.ffn_dim)):
        return None
    shape = _Size(size.dim, size.n_heads, size.kv_heads, size.head_dim, size.ffn_dim, floor)
    return FewBlocks(kernels, shape, ours, rotations)
