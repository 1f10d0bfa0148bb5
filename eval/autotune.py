"""The exit layer and the number of drafts that suit a checkpoint: `python -m eval.autotune checkpoint=...`."""

import json
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from conf.command import command
from conf.output import writable
from conf.strict import convert
from eval.tuning.config import AutotuneConfig
from models.storage.recommended import RECOMMENDED

if TYPE_CHECKING:
    from eval.results.row import Row


def autotune(raw: DictConfig) -> "list[Row]":
    """Calibrate, predict every setting, decode with the best, and write the fastest beside the checkpoint."""
    config = convert(raw, AutotuneConfig)
    from data.files import write_whole
    from eval.engine.checkpoint import open_checkpoint
    from eval.measure.plan import carry_out, plan_of
    from eval.measure.result_file import output_of, replacing
    from eval.results.heat_map import save_png
    from eval.results.recommend import recommend
    from eval.results.rows import measured_rows
    from eval.results.verdict import verdict
    from eval.tuning.calibration import calibrated
    from eval.tuning.prediction import candidates, predictions
    from eval.tuning.report import tuning_figure, tuning_json, tuning_table

    checkpoint = open_checkpoint(config.checkpoint)
    output = output_of(config, checkpoint.stored, "autotune")
    recommended = writable(checkpoint.stored.folder / RECOMMENDED, "checkpoint")
    plan = plan_of(config.benchmark(str(output)), checkpoint)
    calibration = calibrated(plan)
    predicted = predictions(calibration, checkpoint.stored.size.n_layers)
    measured = carry_out(plan._replace(policies=candidates(predicted, config.candidates, config.policies)))
    rows, picture = measured_rows(measured), output.with_suffix(".png")
    with replacing([output, picture], measured.file.name):
        write_whole(output, (json.dumps(tuning_json(rows, predicted, calibration), indent=1) + "\n").encode())
        save_png(tuning_figure(rows, predicted), picture)
    print(tuning_table(rows, predicted))
    print(verdict(rows))
    print(output, picture, measured.file, sep="\n")
    recommend(rows, recommended)
    return rows


if __name__ == "__main__":
    command("autotune", AutotuneConfig, autotune)
