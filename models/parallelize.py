"""FSDP, activation checkpointing and compile for the LayerSkip Llama: torchtitan's, and what gloo needs on top."""

from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule
from torchtitan.distributed import ParallelDims
from torchtitan.models.llama3.parallelize import parallelize_llama

from models.llama import LayerSkipLlama


def parallelize(model: LayerSkipLlama, *, parallel_dims: ParallelDims, **options: Any) -> nn.Module:
    """Apply torchtitan's parallelisms to a model on the meta device; `options` are those of parallelize_llama."""
    parallelize_llama(model, parallel_dims=parallel_dims, **options)
    mesh = parallel_dims.get_mesh("fsdp")
    for module in model.modules():
        if not isinstance(module, FSDPModule):
            continue
        if mesh.device_type == "cpu":
            # gloo has no PREMUL_SUM, which FSDP2 takes to scale while it reduces.
            module.set_force_sum_reduction_for_comms(True)
        if mesh.size() * parallel_dims.dp_replicate == 1:
            # torchtitan sets 1, so that gradients are sums over ranks: a single rank divides each by 1, into a copy.
            module.set_gradient_divide_factor(None)  # type: ignore[arg-type]
    return model
