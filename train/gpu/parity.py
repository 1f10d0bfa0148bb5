"""Losses and gradients on a device beside those of the CPU in fp32: the same weights, tokens, rows and exits."""

from dataclasses import asdict, dataclass

import torch

from models.config import ModelConfig
from models.row_sampling import Sampling
from train.config import Recompute
from train.cost.benchmark_arms import PLAIN, Arm, Runner
from train.cost.benchmark_config import TrainBenchmarkConfig
from train.cpu import prepare_torchtitan
from train.precision import Precision

# Wide enough for every kernel of a GPU (heads of 64), small enough for a CPU.
SIZE = ModelConfig(
    name="parity", dim=256, n_layers=4, n_heads=4, n_kv_heads=2, ffn_dim=512, vocab_size=1024, max_seq_len=256
)
ARMS = (
    Arm(PLAIN),
    Arm("LD", p_max=0.5),
    Arm("EE", n_exits=4),
    Arm("EE+KL", n_exits=4, taught=True),
    Arm("LD+EE", n_exits=2, p_max=0.5),
)
BOUNDS = {Precision.fp32: (1e-5, 1e-3), Precision.bf16: (5e-3, 0.1)}
"""Of the loss and of the gradients: another order of the same sums in fp32; bf16 has 8 bits of mantissa."""


@dataclass(frozen=True)
class ParityRow:
    """How far an arm on the device lies from the CPU in fp32."""

    arm: str
    precision: str
    compiled: bool
    recompute: bool
    loss_cpu: float
    loss_device: float
    loss_difference: float
    """Relative."""
    gradient_difference: float
    """Norm of the difference over the norm, of all parameters together."""
    holds: bool


def parity(device: str, compiled: bool) -> list[dict[str, object]]:
    """Every arm in fp32 and bf16; LD+EE also recomputed in the backward, and `compiled`."""
    prepare_torchtitan()
    torch.set_float32_matmul_precision("highest")
    rows = []
    for arm in ARMS:
        expected = _runner(arm, "cpu", Precision.fp32)
        expected.step(0)
        kinds = [(precision, False, False) for precision in (Precision.fp32, Precision.bf16)]
        if arm == ARMS[-1]:
            kinds += [(Precision.fp32, False, True)] + [(Precision.fp32, True, False)] * compiled
        for kind in kinds:
            runner = _runner(arm, device, *kind)
            runner.step(0)
            rows.append(asdict(_row(expected, runner, *kind)))
    return rows


def _runner(arm: Arm, device: str, precision: Precision, compiled: bool = False, recompute: bool = False) -> Runner:
    config = TrainBenchmarkConfig(
        output="parity.json",
        model=SIZE,
        seq_len=256,
        batch_size=4,
        loss_chunk_tokens=256,
        sampling=Sampling.stratified,
        precision=precision,
        compile=compiled,
        checkpointing=[Recompute.none],
    )
    return Runner(config, arm, recompute, torch.device(device))


def _row(expected: Runner, runner: Runner, precision: Precision, compiled: bool, recompute: bool) -> ParityRow:
    loss_cpu, loss_device = float(expected.last_loss), float(runner.last_loss)
    pairs = zip(expected.model.parameters(), runner.model.parameters(), strict=True)
    missed = norm = 0.0
    for ours, theirs in pairs:
        if ours.grad is None or theirs.grad is None:  # no row was kept in a block
            assert ours.grad is theirs.grad
            continue
        found = theirs.grad.cpu().double()
        missed += float((found - ours.grad.double()).square().sum())
        norm += float(ours.grad.double().square().sum())
    loss, gradient = abs(loss_device - loss_cpu) / loss_cpu, (missed / norm) ** 0.5
    of_loss, of_gradient = BOUNDS[precision]
    return ParityRow(
        arm=runner.arm.name,
        precision=precision.value,
        compiled=compiled,
        recompute=recompute,
        loss_cpu=loss_cpu,
        loss_device=loss_device,
        loss_difference=loss,
        gradient_difference=gradient,
        holds=loss <= of_loss and gradient <= of_gradient,
    )
