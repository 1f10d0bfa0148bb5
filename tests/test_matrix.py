"""Products with weights: every kind equals the plain product, and what it reads is what it holds."""

from collections.abc import Callable

import pytest
import torch

from models.kernels.few_rows import FEW_ROWS
from models.kernels.matrix import DenseMatrix, Int8Matrix, Matrix, int8_refusal

CPU, MOST = torch.device("cpu"), FEW_ROWS[torch.int8]
pytestmark = pytest.mark.usefixtures("threads_as_before")


@pytest.fixture
def threads() -> Callable[[int], None]:
    return torch.set_num_threads


def expected(matrix: Matrix, weight: torch.Tensor, x: torch.Tensor, residual: torch.Tensor, close: float) -> None:
    plain = x.double() @ weight.double().t()
    torch.testing.assert_close(matrix.times(x).double(), plain, rtol=close, atol=close)
    torch.testing.assert_close(matrix.added(residual, x).double(), residual.double() + plain, rtol=close, atol=close)


@pytest.mark.parametrize(("ours", "n_in"), [(False, 24), (True, 24), (True, 32)])
@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("n_rows", [1, 2, 7, 60])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dense(dtype: torch.dtype, n_rows: int, n_threads: int, ours: bool, n_in: int) -> None:
    torch.set_num_threads(n_threads)
    weight, x, residual = (torch.randn(*s).to(dtype) for s in ((40, n_in), (n_rows, n_in), (n_rows, 40)))
    close = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}[dtype]
    expected(DenseMatrix(weight, ours=ours), weight, x, residual, close)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("width", [4097, 4128])
def test_a_row_in_16_bits_is_added_up_in_32(width: int, n_threads: int) -> None:
    """4,096 ones after 2^11: in bfloat16 each would be lost. One width is torch's, the other ours."""
    torch.set_num_threads(n_threads)
    x = torch.zeros(1, width, dtype=torch.bfloat16)
    x[0, :4097] = 1
    x[0, 0] = 2048
    weight = torch.ones(8, width, dtype=torch.bfloat16)
    assert DenseMatrix(weight).times(x).tolist() == [[6144.0] * 8]


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("n_rows", [1, 3, MOST, MOST + 1, 40])
def test_int8_is_the_product_with_the_rounded_weight(n_rows: int, ours: bool) -> None:
    weight = torch.randn(64, 128)
    x, residual = torch.randn(n_rows, 128).bfloat16(), torch.randn(n_rows, 64).bfloat16()
    matrix = Int8Matrix(weight, ours=ours)
    rounded = matrix.weight.float() * matrix.scale.float()[:, None]
    # Half a step of 127 in each row, and the scale's own 8 bits.
    assert ((weight - rounded).abs() <= weight.abs().amax(1, keepdim=True) * (0.5 / 127 + 2**-8)).all()
    expected(matrix, rounded, x, residual, 0.1)
    assert matrix.tensors()[0].nbytes == weight.numel()


def test_a_row_of_zeros_in_int8() -> None:
    matrix = Int8Matrix(torch.zeros(16, 64))
    assert matrix.times(torch.ones(1, 64, dtype=torch.bfloat16)).tolist() == [[0.0] * 16]


def test_int8_is_refused_where_torch_has_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert int8_refusal(CPU) is None
    assert "meta" in (int8_refusal(torch.device("meta")) or "meta")

    def missing(*_: object) -> None:
        raise NotImplementedError("Could not run 'aten::_weight_int8pack_mm'\nmore")

    monkeypatch.setattr(torch, "_weight_int8pack_mm", missing)
    assert "has no kernel for it on cpu (Could not run 'aten::_weight_int8pack_mm')" in str(int8_refusal(CPU))
