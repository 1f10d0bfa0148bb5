"""Speed, acceptance and quality over exits and drafts: `python -m eval.sweep checkpoint=... task=...`."""

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from conf.command import command
from conf.output import writable
from conf.strict import ConfigError, convert
from eval.results.sweep_config import SweepConfig, drafts_to_sweep, exits_to_sweep
from models.storage.recommended import RECOMMENDED

if TYPE_CHECKING:
    from eval.results.sweep_findings import SweepRow


def sweep(raw: DictConfig) -> "list[SweepRow]":
    """Measure the grid, write rows and figures, print the best d of each E and the best of all."""
    config = convert(raw, SweepConfig)
    from eval.engine.checkpoint import open_checkpoint
    from eval.measure.plan import carry_out, plan_of
    from eval.measure.result_file import output_of, replacing
    from eval.results.heat_map import save_png
    from eval.results.recommend import recommend
    from eval.results.rows import measured_rows
    from eval.results.sweep_findings import with_findings
    from eval.results.sweep_plots import front, heat_maps
    from eval.results.sweep_table import sweep_table
    from eval.results.table import save_rows
    from eval.results.verdict import verdict

    checkpoint = open_checkpoint(config.checkpoint)
    stored = checkpoint.stored
    exits = config.exit_layers or exits_to_sweep(stored.size.n_layers)
    drafts = config.num_speculations or drafts_to_sweep(config.task.limit)
    output = output_of(config, stored, "sweep")
    recommended = writable(stored.folder / RECOMMENDED, "recommend=true: checkpoint") if config.recommend else None
    plan = plan_of(config.benchmark(exits, drafts, str(output)), checkpoint)
    print(f"E {', '.join(map(str, sorted(set(exits))))}; d {', '.join(map(str, sorted(set(drafts))))}")
    measured = carry_out(plan)
    try:
        rows, quality = with_findings(measured_rows(measured), measured.records, config.quality)
    except KeyError:
        raise ConfigError(f"quality={config.quality}: this measurement has none; leave it out") from None
    maps, picture = (output.with_name(f"{output.stem}_{name}.png") for name in ("heat_maps", "front"))
    files = [output, output.with_suffix(".csv"), maps, picture]
    with replacing(files, measured.file.name):
        save_rows([row.as_json() for row in rows], output)
        save_png(heat_maps(rows), maps)
        save_png(front(rows, quality), picture)
    print(sweep_table(rows, quality))
    print(verdict(rows))
    print(*files, sep="\n")
    if recommended:
        recommend(rows, recommended)
    return rows


if __name__ == "__main__":
    command(
        "sweep",
        SweepConfig,
        sweep,
        interrupted="interrupted; the same command goes on after the samples that have been measured",
    )
