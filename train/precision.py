"""What the forward and backward compute in; parameters, gradients and optimizer states are always fp32."""

from enum import StrEnum


class Precision(StrEnum):
    """Precision of the forward and backward pass."""

    auto = "auto"
    """bf16 where the hardware multiplies it faster, else fp32."""
    bf16 = "bf16"
    fp32 = "fp32"


def best_precision() -> Precision:
    """What `auto` stands for here.

    Of CPUs' bf16 instructions only those for whole matrices are faster than fp32's: AMX on x86, BFMMLA (`bf16`) on ARM.
    Without any, bf16 is emulated, several times slower.
    """
    import torch  # not for whoever wants the names alone: it takes seconds

    if torch.accelerator.is_available():
        return Precision.bf16
    can = torch.cpu.get_capabilities()
    return Precision.bf16 if can.get("amx_bf16") or can.get("bf16") else Precision.fp32
