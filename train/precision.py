"""What the forward and backward compute in; parameters, gradients and optimizer states are always fp32."""

from enum import StrEnum


class Precision(StrEnum):
    """Precision of the forward and backward pass."""

    auto = "auto"
    """bf16 where the hardware multiplies it, else fp32."""
    bf16 = "bf16"
    fp32 = "fp32"


def best_precision() -> Precision:
    """What `auto` stands for here: a CPU without bf16 instructions would emulate them, several times slower."""
    import torch  # not for whoever wants the names alone: it takes seconds

    if torch.accelerator.is_available():
        return Precision.bf16
    multiplies_bf16 = any(has for name, has in torch.cpu.get_capabilities().items() if name.endswith("bf16"))
    return Precision.bf16 if multiplies_bf16 else Precision.fp32
