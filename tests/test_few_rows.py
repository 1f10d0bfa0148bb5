"""Our own product for CPUs: right in every shape and number format, the same for a row whatever the others are."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import tiny_model
from test_parity_hf import our_model

from models.inference import InferenceLlama
from models.kernels import c_library as building
from models.kernels.c_library import NoLibraryError, c_library
from models.kernels.few_rows import FewRows, Norm, few_rows
from models.kernels.library import SOURCE
from models.kernels.matrix import DenseMatrix

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16, torch.int8]
BF16_STEP = 2**-8
pytestmark = pytest.mark.usefixtures("threads_as_before")


def numbers(dtype: torch.dtype, n_out: int, n_in: int) -> tuple[torch.Tensor, torch.Tensor | None, torch.dtype]:
    """A weight, its scale, and what rows are in."""
    if dtype is torch.int8:
        return torch.randint(-127, 128, (n_out, n_in), dtype=torch.int8), torch.rand(n_out) / 127, torch.bfloat16
    return torch.randn(n_out, n_in).to(dtype), None, dtype


def product(weight: torch.Tensor, scale: torch.Tensor | None) -> FewRows:
    found = few_rows(weight, scale)
    assert found is not None, "this machine has a C compiler"
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(("n_out", "n_in"), [(4, 32), (5, 64), (7, 96), (40, 576), (401, 64), (33, 1536), (64, 16384)])
def test_the_product(dtype: torch.dtype, n_threads: int, n_out: int, n_in: int) -> None:
    """As good as fp64's, but for the rounding of sums in fp32 and of what is written."""
    torch.set_num_threads(n_threads)
    weight, scale, of_rows = numbers(dtype, n_out, n_in)
    times, exact = product(weight, scale), weight.double() * (1 if scale is None else scale.double()[:, None])
    for n_rows in (0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 25):
        x, residual = torch.randn(n_rows, n_in).to(of_rows), torch.randn(n_rows, n_out).to(of_rows)
        expected = x.double() @ exact.t()
        sizes = x.double().abs() @ exact.abs().t()  # what rounding of a sum in fp32 is relative to
        written = BF16_STEP if of_rows is torch.bfloat16 else 2**-23
        for got, plain in ((times(x, None), expected), (times(x, residual), expected + residual.double())):
            assert got.dtype is of_rows
            assert ((got.double() - plain).abs() <= plain.abs() * written + sizes * 1e-6).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_does_not_feel_the_others(dtype: torch.dtype) -> None:
    weight, scale, of_rows = numbers(dtype, 203, 192)
    times, x, residual = product(weight, scale), torch.randn(13, 192).to(of_rows), torch.randn(13, 203).to(of_rows)
    alone = torch.cat([times(x[i : i + 1], residual[i : i + 1]) for i in range(13)])
    for n_threads in (1, 3):
        torch.set_num_threads(n_threads)
        for n_rows in range(1, 14):
            assert torch.equal(times(x[:n_rows], residual[:n_rows]), alone[:n_rows])


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_need_not_lie_together(dtype: torch.dtype) -> None:
    weight, scale, of_rows = numbers(dtype, 16, 64)
    times, x, residual = product(weight, scale), torch.randn(64, 3).to(of_rows).t(), torch.randn(16, 3).to(of_rows).t()
    assert torch.equal(times(x, residual), times(x.contiguous(), residual.contiguous()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_may_be_normed_first(dtype: torch.dtype, weighted: bool) -> None:
    weight, scale, of_rows = numbers(dtype, 37, 96)
    times, exact = product(weight, scale), weight.double() * (1 if scale is None else scale.double()[:, None])
    x, of_norm = torch.randn(7, 96).to(of_rows), torch.rand(96).to(of_rows) if weighted else None
    normed = x.double() / torch.hypot(x.double().norm(dim=1, keepdim=True), torch.tensor(0.5))
    normed = normed if of_norm is None else normed * of_norm.double()
    got, expected = times(x, None, Norm(0.5, of_norm)), normed @ exact.t()
    written = BF16_STEP if of_rows is torch.bfloat16 else 2**-23
    sizes = normed.abs() @ exact.abs().t()
    assert ((got.double() - expected).abs() <= expected.abs() * written + sizes * 1e-6).all()
    assert torch.equal(times(x[3:4], None, Norm(0.5, of_norm)), got[3:4])


def test_bf16_is_rounded_as_torch_rounds() -> None:
    """Half ways to the even neighbour, infinities and what is no number as they are."""
    odd = torch.tensor([1 + BF16_STEP / 2, 1 + 1.5 * BF16_STEP, -1 - BF16_STEP / 2, 3.4e38, float("inf"), float("nan")])
    x = torch.zeros(6, 32, dtype=torch.bfloat16)
    x[:, 0], x[:, 1] = odd.bfloat16(), (odd - odd.bfloat16().float()).nan_to_num(0, 0, 0).bfloat16()
    weight = torch.zeros(4, 32, dtype=torch.bfloat16)
    weight[:, :2] = 1
    expected = (x[:, 0].float() + x[:, 1].float()).bfloat16()
    got = product(weight, None)(x, None)[:, 0]
    assert torch.equal(got.nan_to_num(7), expected.nan_to_num(7))


def test_what_it_is_not_for() -> None:
    assert few_rows(torch.ones(8, 33)) is None, "no multiple of what is multiplied at once"
    assert few_rows(torch.ones(3, 64)) is None
    assert few_rows(torch.ones(8, 64, dtype=torch.float64)) is None
    assert few_rows(torch.ones(8, 64, device="meta")) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_uses_it_and_says_the_same(dtype: torch.dtype) -> None:
    size = tiny_model(n_layers=2, ffn_dim=64)
    weights, tokens, logits = our_model(size).state_dict(), torch.arange(6)[None], []
    for ours in (True, False):
        model = InferenceLlama(size, weights, dtype=dtype, device=CPU, our_kernels=ours)
        assert all(isinstance(m, DenseMatrix) and (m.few_rows is not None) is ours for m in model.matrices())
        with torch.inference_mode():
            x = model.run(model.embed(tokens), model.new_cache(6), torch.arange(6), 6, range(model.size.n_layers))
            logits.append(model.logits(x).float())
    close = 1e-5 if dtype is torch.float32 else 0.05
    torch.testing.assert_close(*logits, rtol=close, atol=close)


CALL = "import torch; from models.kernels.few_rows import few_rows; print(few_rows(torch.ones(4, 64)) is None)"


def call(**environment: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", CALL], capture_output=True, text=True, check=True, cwd=SOURCE.parents[2], env=environment
    )
    return done.stdout.strip(), done.stderr


def test_a_machine_without_a_compiler_is_told_so(tmp_path: Path) -> None:
    out, told = call(PATH=str(tmp_path), HOME=str(tmp_path))
    assert out == "True"
    assert (
        "decoding on the CPU takes two to four times as long without our own kernels: no C compiler is installed"
        in told
    )
    assert call(PATH="/usr/bin:/bin", HOME="/proc") == ("False", ""), "a cache that cannot be written is no matter"


def test_a_compiler_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "CACHE", tmp_path)
    (tmp_path / "bad.c").write_text("int f( {")
    with pytest.raises(NoLibraryError, match=r"cannot compile bad\.c \(.*bad\.c"):
        c_library(tmp_path / "bad.c")
    assert {path.name for path in tmp_path.iterdir()} == {"bad.c"}


def test_it_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "CACHE", tmp_path / "kept")
    assert c_library(SOURCE).step() % 8 == 0
    [library] = (tmp_path / "kept").iterdir()
    monkeypatch.setenv("CC", "false")
    assert c_library(SOURCE).step() % 8 == 0
    monkeypatch.setattr(building, "CACHE", tmp_path)
    broken = tmp_path / library.name
    broken.write_bytes(b"cut short")
    with pytest.raises(NoLibraryError, match="false cannot compile"):
        c_library(SOURCE)
    monkeypatch.delenv("CC")
    assert c_library(SOURCE).step() % 8 == 0
    assert broken.stat().st_size > 1000, "compiled anew"
