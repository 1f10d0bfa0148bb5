"""What layer dropout and early exits cost in training: `python -m train.benchmark output=FILE`.

Forward and backward of plain torchtitan with its chunked loss, and of our arms, each in a process of its own. Steps of
an arm and of plain take turns; ratios are those of such pairs.
"""

import json
import multiprocessing
import os
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from conf.command import command
from conf.output import writable
from conf.progress import progress
from conf.strict import ConfigError, convert
from data.files import write_whole
from train.config import Recompute
from train.cost.benchmark_config import TrainBenchmarkConfig
from train.cost.fits import check_memory
from train.precision import Precision, best_precision

if TYPE_CHECKING:
    from train.cost.benchmark_arms import Arm
    from train.cost.benchmark_row import ArmRow


def benchmark(raw: DictConfig) -> None:
    """Measure, print the table, write the rows."""
    config = convert(raw, TrainBenchmarkConfig)
    from train.cost.benchmark_row import cost_table
    from train.cost.device import usable

    check_memory(config.model, config.batch_size * config.seq_len)
    output = writable(config.output)
    if config.precision is Precision.auto:
        config.precision = best_precision()
    device = usable(config.machine.device, "machine.device")
    os.environ["KINETO_LOG_LEVEL"] = "99"  # the profiler, which counts memory, would tell when it starts and stops
    rows = [row for recompute in config.checkpointing for row in _measure(config, recompute, device)]
    write_whole(output, json.dumps([asdict(row) for row in rows], indent=1).encode())
    print(cost_table(rows))
    print(output)


def _measure(config: TrainBenchmarkConfig, recompute: Recompute, device: str) -> "list[ArmRow]":
    """The rows of one kind of activation checkpointing.

    Each arm, plain as a control among them, has a new process of plain to compare with. No more than those two live at
    a time, because more would not fit on a GPU with a model worth measuring.
    """
    from train.cost.benchmark_arms import arms
    from train.cost.benchmark_row import row_of

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
            rows.append(row_of(config, arm, recompute, device, pairs, peak, plain_peak))
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


if __name__ == "__main__":
    command("train_benchmark", TrainBenchmarkConfig, benchmark)
