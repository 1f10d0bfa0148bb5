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
    from eval.measure.result_file import replacing
    from eval.results.recommend import recommend
    from eval.results.rows import measured_rows
    from eval.results.table import details, save, table
    from eval.results.verdict import verdict

    plan = plan_of(config)
    own = plan.checkpoint.stored.folder / RECOMMENDED
    recommended = writable(own, "recommend=true: checkpoint") if config.recommend else None
    rows = measured_rows(carry_out(plan))
    files = [plan.output, plan.output.with_suffix(".csv")]
    samples_file = rows[0].facts["samples_file"]
    with replacing(files, samples_file):
        save([row.as_json() for row in rows], plan.output)
    shown = [name for name in config.task.shown if name in rows[0].metrics]
    print(table(rows, shown))
    if said := verdict(rows):
        print(said)
    if config.detail:
        print(f"\n{details(rows, shown)}\n")
    print(*files, plan.output.with_name(samples_file), sep="\n")
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
