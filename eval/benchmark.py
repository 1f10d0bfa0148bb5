"""How good and how fast a checkpoint is in each mode: `python -m eval.benchmark checkpoint=... task=...`."""

from omegaconf import DictConfig

from conf.command import command
from conf.strict import convert
from data.config import DataError
from eval.benchmark_config import BenchmarkConfig
from eval.measurement import carry_out, plan_of
from eval.rows import Row
from eval.sandbox.limits import SandboxError
from eval.table import best_line, details, save, table
from models.hf_config import FormatError


def benchmark(raw: DictConfig) -> list[Row]:
    """Measure, print the table, write JSON, CSV and a line for each sample and setting."""
    config = convert(raw, BenchmarkConfig)
    plan = plan_of(config)
    rows = carry_out(plan)
    csv = save(rows, plan.output)
    shown = [name for name in config.task.SHOWN if name in rows[0]]
    print(table(rows, shown))
    if best := best_line(rows):
        print(best)
    if config.detail:
        print(f"\n{details(rows, shown)}\n")
    print(f"{plan.output}, {csv}, {plan.output.with_name(rows[0]['samples_file'])}")
    return rows


if __name__ == "__main__":
    command(
        "benchmark",
        BenchmarkConfig,
        benchmark,
        told={DataError: 2, FormatError: 2, SandboxError: 2},
        interrupted="interrupted; the same command goes on after the samples that have been measured",
    )
