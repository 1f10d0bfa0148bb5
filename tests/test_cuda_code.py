"""What torch.compile makes for an H100, as far as it goes without one: Inductor's Triton code, and its machine code.

It is compiled and not run. Graphs are forward passes, because autograd asks a CUDA tensor's device for a stream.
"""

import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import tiny_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torchtitan.components.loss import cross_entropy_loss

from models.spec import llama_config

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.version.cuda is None, reason="this torch is not built for CUDA"),
]
H100 = SimpleNamespace(
    name="NVIDIA H100",
    major=9,
    minor=0,
    multi_processor_count=132,
    total_memory=80 << 30,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    regs_per_multiprocessor=65536,
    warp_size=32,
    shared_memory_per_block=49152,
    shared_memory_per_block_optin=232448,
    shared_memory_per_multiprocessor=233472,
    L2_cache_size=50 << 20,
)
KERNEL = re.compile(r"async_compile\.triton\('(\w+)', '''(.*?)'''", re.S)


class Driver:
    """What Triton asks of a GPU's driver before it compiles."""

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


@pytest.fixture
def h100(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A torch that takes this machine for one with an H100, as long as nothing is run on it."""
    import triton
    from torch._inductor import config
    from torch._inductor.runtime import triton_helpers

    answers: dict[str, Callable[..., Any]] = {
        "current_device": lambda: 0,
        "device_count": lambda: 1,
        "is_available": lambda: True,
        "_lazy_init": lambda: None,
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_properties": lambda device=None: H100,
        "_get_device_properties": lambda device: H100,
        "_exchange_device": lambda device: 0,
        "_maybe_exchange_device": lambda device: 0,
        "get_rng_state": lambda device=None: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda state, device=None: None,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(f"torch.cuda.{name}", answer, raising=False)
    monkeypatch.setattr(triton_helpers, "set_driver_to_gpu", lambda: None)
    triton.runtime.driver.set_active(Driver())
    with config.patch(fx_graph_cache=False, compile_threads=1):
        yield


def inductor_source(function: Callable[..., Any], *shapes: tuple[tuple[int, ...], torch.dtype]) -> str:
    """The Python file that Inductor writes for a function of tensors on "cuda"."""
    from torch._inductor import graph
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.decomposition import select_decomp_table
    from torch._inductor.virtualized import V
    from torch.fx.experimental.proxy_tensor import make_fx

    class Written(Exception):  # noqa: N818  # no error
        pass

    found: list[str] = []
    codegen = graph.GraphLowering.codegen

    def stop(lowering: Any) -> Any:
        code, _ = codegen(lowering)
        found.append(code.value)
        raise Written

    with pytest.MonkeyPatch.context() as patch, FakeTensorMode(allow_non_fake_inputs=True) as mode:
        patch.setattr(graph.GraphLowering, "codegen", stop)
        tensors = [torch.empty(shape, dtype=dtype, device="cuda") for shape, dtype in shapes]
        traced = make_fx(function, decomposition_table=select_decomp_table(), tracing_mode="fake")(*tensors)
        with V.set_fake_mode(mode), pytest.raises(Exception, match="Written"):
            compile_fx_inner(traced, tensors)
    [source] = found
    return source


def machine_code(source: str, folder: Path) -> Iterator[tuple[str, bytes]]:
    """(Triton source, cubin for compute capability 9.0) of each kernel."""
    import triton
    from triton.compiler import ASTSource

    for name, text in KERNEL.findall(source):
        path = folder / f"{name}.py"
        path.write_text(text)
        kernel = getattr(module_at(path), name)
        config, names = kernel.configs[0], kernel.fn.arg_names
        constants = dict(kernel.triton_meta.get("constants", {})) | config.kwargs
        types = {n: "constexpr" if n in constants else kernel.triton_meta["signature"][n] for n in names}
        known = {(names.index(n),): value for n, value in constants.items() if n in names}
        options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
        target = Driver().get_current_target()
        compiled = triton.compile(ASTSource(kernel.fn, types, constexprs=known), target=target, options=options)
        yield text, compiled.asm["cubin"]


def module_at(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.usefixtures("h100")
def test_the_loss_reads_its_logits_in_16_bits(tmp_path: Path) -> None:
    n, vocabulary = 256, 32000
    shapes = (((1, n, vocabulary), torch.bfloat16), ((1, n), torch.int64))
    source = inductor_source(lambda logits, labels: (cross_entropy_loss(logits, labels),), *shapes)
    kernels = list(machine_code(source, tmp_path))
    assert kernels
    assert all(cubin.startswith(b"\x7fELF") for _, cubin in kernels)
    made = re.findall(r"empty_strided_cuda\(\((.*?)\)", source)
    assert made
    assert not [shape for shape in made if str(vocabulary) in shape], (
        "nothing of the logits' size, in fp32 least of all"
    )


@pytest.mark.usefixtures("h100")
def test_what_lies_between_the_matrices_of_the_feed_forward_is_fused(tmp_path: Path) -> None:
    size = tiny_model(dim=256, n_heads=4, ffn_dim=512)
    with torch.device("meta"):
        block = llama_config(size).build().layers["0"]
    names = [name for name, _ in block.named_parameters()]
    shapes = [(tuple(p.shape), torch.bfloat16) for _, p in block.named_parameters()]

    def feed_forward(x: torch.Tensor, *weights: torch.Tensor) -> tuple[torch.Tensor]:
        own = dict(zip(names, weights, strict=True))
        h = torch.nn.functional.rms_norm(x, (256,), own["ffn_norm.weight"], size.norm_eps)
        inner = {n.removeprefix("feed_forward."): w for n, w in own.items() if n.startswith("feed_forward.")}
        return (x + torch.func.functional_call(block.feed_forward, inner, (h,)),)

    source = inductor_source(feed_forward, ((2, 128, 256), torch.bfloat16), *shapes)
    kernels = list(machine_code(source, tmp_path))
    assert all(cubin.startswith(b"\x7fELF") for _, cubin in kernels)
    assert len(kernels) <= 3, "the norm, SiLU and its product, the sum with the residual stream"
    assert source.count("extern_kernels.") - source.count("extern_kernels import") >= 3, "three products by cuBLAS"
