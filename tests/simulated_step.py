"""A training step on rank 0 of ranks that do not exist: what it sends, and how much memory lives at a time.

The process group is torch's fake one, whose collectives return at once, and tensors are fake: they have shapes and no
numbers. So a step of 70 billion parameters on 512 ranks runs on any machine, through the same modules as on GPUs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from live_memory import LiveMemory
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import _clear_sharding_prop_cache
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torchtitan.distributed import ParallelDims
from torchtitan.distributed.utils import clip_grad_norm_, get_spmd_backend, set_spmd_backend

import models.llama
from train.config import PretrainConfig
from train.recipe.chunk_losses import SoftTargets
from train.titan import trainer_config

KINDS = {
    "_allgather_base_": "all_gather",
    "all_gather_into_tensor": "all_gather",
    "_reduce_scatter_base_": "reduce_scatter",
    "reduce_scatter_tensor": "reduce_scatter",
    "allreduce_": "all_reduce",
    "all_reduce": "all_reduce",
}


@contextmanager
def one_of(world_size: int) -> Iterator[None]:
    """Rank 0 of a process group whose other ranks do not exist: collectives return at once."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world_size)
    try:
        yield
    finally:
        dist.destroy_process_group()
        _clear_sharding_prop_cache()  # it would find the next group's mesh equal to this one's, and use this one's


def parallel_model(config: PretrainConfig, world_size: int) -> tuple[Any, Any]:
    """The model as the trainer builds it on the meta device and shards it, and the loss."""
    corpus: Any = SimpleNamespace(tokenizer=SimpleNamespace(vocab_size=config.model.vocab_size))
    titan = trainer_config(config, corpus)
    titan.model_spec.model.update_from_config(config=titan)
    with torch.device("meta"):
        model = titan.model_spec.model.build()
    model = titan.model_spec.parallelize_fn(
        model,
        parallel_dims=ParallelDims.from_config(titan.parallelism, world_size),
        training=titan.training,
        parallelism=titan.parallelism,
        compile_config=titan.compile,
        ac_config=titan.activation_checkpoint,
        dump_folder=config.run_dir,
    )
    return model, titan.loss.build(compile_config=titan.compile)


class Collectives(TorchDispatchMode):
    """Notes the collectives that run while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int, int]] = []
        """(kind, bytes of the whole tensor, ranks), in their order."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(t, DTensor) for t in types):
            return NotImplemented  # its own operations come through here, with the collectives among them
        if kind := KINDS.get(func._schema.name.partition("::")[2]):
            self.seen.append((kind, *_whole(kind, func, args)))
        return func(*args, **(kwargs or {}))


def _whole(kind: str, func: Any, args: Any) -> tuple[int, int]:
    """Bytes of the tensor that is gathered, reduced or scattered, and the number of ranks."""
    if func.namespace == "c10d":  # in place: the tensors are the first two arguments, the group is the next
        tensors = [t for a in args[:2] for t in (a if isinstance(a, list) else [a]) if isinstance(t, torch.Tensor)]
        group = next(a for a in args if isinstance(a, torch.ScriptObject) and "ProcessGroup" in str(a._type()))
        return max(t.nbytes for t in tensors), dist.ProcessGroup.unbox(group).size()
    ranks = dist.distributed_c10d._resolve_process_group(args[-1]).size()
    return args[0].nbytes * (ranks if kind == "all_gather" else 1), ranks


class FusedNorm(torch.autograd.Function):
    """What a GPU's RMSNorm keeps: its input and a number for each row. A CPU's keeps copies in fp32."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight, x.new_empty(*x.shape[:-1], 1, dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(weight)


@dataclass
class Simulation:
    """What was seen."""

    collectives: list[tuple[str, int, int]] = field(default_factory=list)
    peak: int = 0
    peaks: dict[str, int] = field(default_factory=dict)
    """Bytes alive, the most, in the forward, the loss and the backward of the last micro-batch."""


def simulated_step(
    config: PretrainConfig,
    world_size: int,
    exits: Sequence[int],
    kept: Sequence[torch.Tensor | None] | None = None,
    micro_batches: int = 1,
    memory: bool = False,
    soft_targets: SoftTargets | None = None,
) -> Simulation:
    """Forward, loss, backward and gradient norm, as the trainer runs them, of the given exits and kept rows.

    `memory` counts what lives at a time as well, parameters and gradients included, the optimizer's state not.
    """
    found, backend, weights = Simulation(), get_spmd_backend(), (1 / len(exits),) * len(exits)
    set_spmd_backend("partial_dtensor")
    local, context = config.train.local_batch_size or 0, config.parallelism.context
    tokens = torch.zeros(local, config.train.seq_len // context, dtype=torch.int64)
    positions = torch.zeros_like(tokens) if context > 1 else None
    with (
        one_of(world_size),
        # The named mask cannot be made of fake tensors.
        patch.object(models.llama, "_mask_of_last", lambda n, end, device: torch.ones(n, end, dtype=torch.bool)),
    ):
        model, loss_fn = parallel_model(config, world_size)
        with FakeTensorMode(allow_non_fake_inputs=True), Collectives() as collectives, LiveMemory() as live:
            live.enabled = memory
            model.to_empty(device="cpu")
            loss_fn.set_lm_head(model.lm_head)
            model._skip_lm_head = True
            live.peak = 0
            with patch.object(torch.nn.functional, "rms_norm", fused_norm) if memory else _nothing():
                for _ in range(micro_batches):
                    states = model(tokens, positions, exits=tuple(exits), kept_rows=kept)
                    found.peaks["forward"] = live.next_phase()
                    loss, _ = loss_fn(states, tokens, torch.tensor(1.0), weights=weights, soft_targets=soft_targets)
                    del states
                    found.peaks["loss"] = live.next_phase()
                    loss.backward()
                    found.peaks["backward"] = live.next_phase()
            clip_grad_norm_(list(model.parameters()), 1.0, foreach=True)
    set_spmd_backend(backend)
    found.collectives, found.peak = collectives.seen, max(found.peaks.values())
    return found


def fused_norm(x: torch.Tensor, _: Any, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """In place of torch.nn.functional.rms_norm; numbers are not computed."""
    return FusedNorm.apply(x, weight)  # type: ignore[no-any-return, no-untyped-call]


@contextmanager
def _nothing() -> Iterator[None]:
    yield
