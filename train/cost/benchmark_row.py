"""One arm's figures of train.benchmark, and their table."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch

from conf.provenance import code_revision, processor
from train.config import Recompute
from train.cost.benchmark_arms import Arm, Step, exit_layers
from train.cost.benchmark_config import TrainBenchmarkConfig
from train.precision import Precision

Pairs = Sequence[tuple[Step, Step]]
"""A step of plain and one of the arm, taken one after the other."""


@dataclass(frozen=True, kw_only=True)
class ArmRow:
    """What an arm costs beside plain. The keys of the output file are the names of the fields, in their order."""

    arm: str
    n_exits: int
    exit_layers: list[int]
    p_max: float
    checkpointing: str
    step_time_ratio: float
    predicted_ratio: float
    over_predicted: float
    """Median over the pairs of the measured by the predicted ratio."""
    over_predicted_quartiles: tuple[float, float]
    over_predicted_cpu_time: float
    peak_memory_ratio: float
    peak_bytes: int
    extra_elements_per_BTD: float  # noqa: N815
    """Memory beyond plain's, in activations of [batch, tokens, dim]."""
    step_seconds: float
    tokens_per_second: float
    flops_per_second: float
    n_layers: int
    dim: int
    vocab_size: int
    seq_len: int
    batch_size: int
    loss_chunk_tokens: int
    rounds: int
    precision: str
    compile: bool
    hardware: str
    threads: int
    torch: str
    commit: str


def row_of(
    config: TrainBenchmarkConfig, arm: Arm, recompute: Recompute, device: str, pairs: Pairs, peak: int, plain_peak: int
) -> ArmRow:
    """One arm's figures. Rows that were dropped differ from step to step, so each pair has a prediction of its own.

    `peak` and `plain_peak` are bytes, the arm's and plain's.
    """
    predicted = sum(ours.flops for _, ours in pairs) / sum(plain.flops for plain, _ in pairs)
    over = sorted(ours.seconds / plain.seconds * plain.flops / ours.flops for plain, ours in pairs)
    over_cpu = [ours.cpu_seconds / plain.cpu_seconds * plain.flops / ours.flops for plain, ours in pairs]
    element = 2 if config.precision is Precision.bf16 else 4
    per_btd = element * config.batch_size * config.seq_len * config.model.dim
    seconds = median(ours.seconds for _, ours in pairs)
    n_tokens = config.batch_size * config.seq_len
    return ArmRow(
        arm=arm.name,
        n_exits=arm.n_exits,
        exit_layers=[layer + 1 for layer in exit_layers(arm.n_exits, config.model.n_layers)],
        p_max=arm.p_max,
        checkpointing=recompute.value,
        step_time_ratio=median(over) * predicted,
        predicted_ratio=predicted,
        over_predicted=median(over),
        over_predicted_quartiles=(over[len(over) // 4], over[3 * len(over) // 4]),
        over_predicted_cpu_time=median(over_cpu),
        peak_memory_ratio=peak / plain_peak,
        peak_bytes=peak,
        extra_elements_per_BTD=(peak - plain_peak) / per_btd,
        step_seconds=seconds,
        tokens_per_second=n_tokens / seconds,
        flops_per_second=median(ours.flops * n_tokens / ours.seconds for _, ours in pairs),
        n_layers=config.model.n_layers,
        dim=config.model.dim,
        vocab_size=config.model.vocab_size,
        seq_len=config.seq_len,
        batch_size=config.batch_size,
        loss_chunk_tokens=config.loss_chunk_tokens,
        rounds=config.rounds,
        precision=config.precision.value,
        compile=config.compile,
        hardware=torch.cuda.get_device_name() if device == "cuda" else processor(),
        threads=config.machine.threads or torch.get_num_threads(),
        torch=torch.__version__,
        commit=code_revision(),
    )


def cost_table(rows: Sequence[ArmRow]) -> str:
    """The rows as text."""
    lines = [
        f"{'arm':<6} {'exits':>5} {'p_max':>5} {'recompute':>9} {'time ratio':>10} {'predicted':>9} {'over':>6}"
        f" {'q25':>6} {'q75':>6} {'memory':>7} {'extra/BTD':>9} {'tokens/s':>9}"
    ]
    for row in rows:
        low, high = row.over_predicted_quartiles
        lines.append(
            f"{row.arm:<6} {row.n_exits:>5} {row.p_max:>5.2f} {row.checkpointing:>9}"
            f" {row.step_time_ratio:>10.3f} {row.predicted_ratio:>9.3f} {row.over_predicted:>6.3f}"
            f" {low:>6.3f} {high:>6.3f} {row.peak_memory_ratio:>7.3f} {row.extra_elements_per_BTD:>9.2f}"
            f" {row.tokens_per_second:>9,.0f}"
        )
    return "\n".join(lines)
