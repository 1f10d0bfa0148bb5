"""How good and how fast a checkpoint is in each mode: `python -m eval.benchmark checkpoint=... task=...`."""

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from conf.command import command
from conf.output import writable
from conf.strict import convert
from eval.measure.config import BenchmarkConfig
from models.storage.recommended import RECOMMENDED

if TYPE_CHECKING:
    from eval.results.row import Row


def benchmark(raw: DictConfig) -> "list[Row]":
    """Measure, print the table, write JSON, CSV and a line for each sample and setting."""
    config = convert(raw, BenchmarkConfig)
    from eval.measure.plan import carry_out, plan_of
    from eval.measure.result_file import set_aside
    from eval.results.recommend import recommend
    from eval.results.rows import measured_rows
    from eval.results.table import benchmark_table, details, save_rows
    from eval.results.verdict import verdict

    plan = plan_of(config)
    own_file = plan.checkpoint.stored.folder / RECOMMENDED
    recommended = writable(own_file, "recommend=true: checkpoint") if config.recommend else None
    measured = carry_out(plan)
    rows = measured_rows(measured)
    files = [plan.output, plan.output.with_suffix(".csv")]
    set_aside(files, measured.file.name)
    save_rows([row.as_json() for row in rows], plan.output)
    metrics = [name for name in config.task.table_metrics if name in rows[0].metrics]
    print(benchmark_table(rows, metrics))
    if said := verdict(rows):
        print(said)
    if config.detail:
        print(f"\n{details(rows, metrics)}\n")
    print(*files, measured.file, sep="\n")
    if recommended:
        recommend(rows, recommended)
    return rows


if __name__ == "__main__":
    command(
        "benchmark",
        BenchmarkConfig,
        benchmark,
        interrupted="interrupted; the same command goes on after the samples that have been measured",
    )
