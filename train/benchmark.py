"""What layer dropout and early exits cost in training: `python -m train.benchmark output=FILE`.

Forward and backward of plain torchtitan with its chunked loss, and of our arms, each in a process of its own. Steps of
an arm and of plain take turns; ratios are those of such pairs.
"""

import json
import multiprocessing
import os
from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from conf.command import command
from conf.output import writable
from conf.progress import progress
from conf.provenance import code_revision, processor
from conf.strict import ConfigError, convert
from data.files import write_whole
from train.config import Recompute
from train.cost.benchmark_config import Device, TrainBenchmarkConfig
from train.precision import Precision, best_precision

if TYPE_CHECKING:
    from train.cost.benchmark_arms import Arm, Step

    Pairs = list[tuple[Step, Step]]


def benchmark(raw: DictConfig) -> None:
    """Measure, print the table, write the rows."""
    config = convert(raw, TrainBenchmarkConfig)
    output = writable(config.output)
    if config.precision is Precision.auto:
        config.precision = best_precision()
    device = _usable(config.device)
    os.environ["KINETO_LOG_LEVEL"] = "99"  # the profiler, which counts memory, would tell when it starts and stops
    rows = [row for recompute in config.checkpointing for row in _measure(config, recompute, device)]
    write_whole(output, json.dumps(rows, indent=1).encode())
    print(_table(rows))
    print(output)


def _usable(device: Device) -> str:
    """The device, `auto` resolved. Raises ConfigError for a GPU that is not here."""
    import torch

    if device is Device.auto:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device is Device.cuda and not torch.cuda.is_available():
        raise ConfigError("device=cuda: no GPU can be used here; cpu or auto")
    return device.value


def _measure(config: TrainBenchmarkConfig, recompute: Recompute, device: str) -> list[dict[str, Any]]:
    """The rows of one kind of activation checkpointing.

    Each arm, plain as a control among them, has a new process of plain to compare with. No more than those two live at
    a time, because more would not fit on a GPU with a model worth measuring.
    """
    from train.cost.benchmark_arms import arms

    chosen, rows, plain_peak = arms(config), [], 0
    with progress(f"checkpointing={recompute.value}", unit="pair", total=config.rounds * len(chosen)) as bar:
        for arm in chosen:
            with ExitStack() as stack:
                baseline, ask = (_process(stack, config, a, recompute, device) for a in (chosen[0], arm))
                baseline("memory", 0)
                peak = ask("memory", 0)
                plain_peak = plain_peak or peak
                for t in range(config.warmup):
                    baseline("step", t)
                    ask("step", t)
                pairs = []
                for t in range(config.rounds):
                    # Which of the two is first changes, in case the second profits.
                    if t % 2 == 0:
                        plain, ours = baseline("step", t), ask("step", t)
                    else:
                        ours, plain = ask("step", t), baseline("step", t)
                    pairs.append((plain, ours))
                    bar.update()
            rows.append(_row(config, arm, recompute, device, pairs, peak, plain_peak))
    return rows


def _process(stack: ExitStack, config: TrainBenchmarkConfig, arm: "Arm", recompute: Recompute, device: str) -> Any:
    """Start an arm's process; returns what asks it."""
    from train.cost.benchmark_arms import serve

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, config, arm, recompute, device), daemon=True)
    process.start()
    theirs.close()

    def ask(what: str, t: int) -> Any:
        try:
            ours.send((what, t))
            return ours.recv()
        except (EOFError, OSError):
            process.join()
            raise ConfigError(
                f"the process of {arm} ended with status {process.exitcode} (out of memory?); try a smaller model"
            ) from None

    def end() -> None:
        if process.is_alive():
            ours.send(None)
        process.join()

    stack.callback(end)
    return ask


def _row(
    config: TrainBenchmarkConfig,
    arm: "Arm",
    recompute: Recompute,
    device: str,
    pairs: "Pairs",
    peak: int,
    plain_peak: int,
) -> dict[str, Any]:
    """One arm's figures. Rows that were dropped differ from step to step, so each pair has a prediction of its own."""
    import torch

    from train.cost.benchmark_arms import exit_layers

    predicted = sum(ours.flops for _, ours in pairs) / sum(plain.flops for plain, _ in pairs)
    over = [ours.seconds / plain.seconds * plain.flops / ours.flops for plain, ours in pairs]
    over_cpu = [ours.cpu_seconds / plain.cpu_seconds * plain.flops / ours.flops for plain, ours in pairs]
    element = 2 if config.precision is Precision.bf16 else 4
    per_btd = element * config.batch_size * config.seq_len * config.model.dim
    seconds = median(ours.seconds for _, ours in pairs)
    n_tokens = config.batch_size * config.seq_len
    return {
        "arm": arm.name,
        "n_exits": arm.n_exits,
        "exit_layers": [layer + 1 for layer in exit_layers(arm.n_exits, config.model.n_layers)],
        "p_max": arm.p_max,
        "checkpointing": recompute.value,
        "step_time_ratio": median(over) * predicted,
        "predicted_ratio": predicted,
        "over_predicted": median(over),
        "over_predicted_quartiles": [sorted(over)[len(over) // 4], sorted(over)[3 * len(over) // 4]],
        "over_predicted_cpu_time": median(over_cpu),
        "peak_memory_ratio": peak / plain_peak,
        "peak_bytes": peak,
        "extra_elements_per_BTD": (peak - plain_peak) / per_btd,
        "step_seconds": seconds,
        "tokens_per_second": n_tokens / seconds,
        "flops_per_second": median(ours.flops * n_tokens / ours.seconds for _, ours in pairs),
        "n_layers": config.model.n_layers,
        "dim": config.model.dim,
        "vocab_size": config.model.vocab_size,
        "seq_len": config.seq_len,
        "batch_size": config.batch_size,
        "loss_chunk_tokens": config.loss_chunk_tokens,
        "rounds": config.rounds,
        "precision": config.precision.value,
        "compile": config.compile,
        "hardware": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "threads": config.threads or torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": code_revision(),
    }


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"{'arm':<6} {'exits':>5} {'p_max':>5} {'recompute':>9} {'time ratio':>10} {'predicted':>9} {'over':>6}"
        f" {'q25':>6} {'q75':>6} {'memory':>7} {'extra/BTD':>9} {'tokens/s':>9}"
    ]
    for row in rows:
        low, high = row["over_predicted_quartiles"]
        lines.append(
            f"{row['arm']:<6} {row['n_exits']:>5} {row['p_max']:>5.2f} {row['checkpointing']:>9}"
            f" {row['step_time_ratio']:>10.3f} {row['predicted_ratio']:>9.3f} {row['over_predicted']:>6.3f}"
            f" {low:>6.3f} {high:>6.3f} {row['peak_memory_ratio']:>7.3f} {row['extra_elements_per_BTD']:>9.2f}"
            f" {row['tokens_per_second']:>9,.0f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    command("train_benchmark", TrainBenchmarkConfig, benchmark)
