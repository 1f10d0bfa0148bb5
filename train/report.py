"""Training runs as one HTML page: `python -m train.report run_dir=...` or `'runs=[...,...]'`."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from conf.command import command
from conf.output import writable
from conf.strict import ConfigError, convert
from train.report_page.config import ReportConfig

if TYPE_CHECKING:
    from train.report_page.run_record import RunRecord


def report(raw: DictConfig) -> None:
    """Read the runs and write their page; with `refresh` again and again until they have finished."""
    for key in ("run_dir", "runs"):
        if sum(word.startswith(f"{key}=") for word in sys.argv[1:]) > 1:
            raise ConfigError(f"{key}: given more than once; several runs are 'runs=[FOLDER,FOLDER]'")
    config = convert(raw, ReportConfig)
    from train.report_page.run_names import default_output, folders_of, names_of
    from train.report_page.run_record import RunRecord

    folders = folders_of(config)
    output = writable(config.output or default_output(folders))
    records = [RunRecord(folder, name) for folder, name in zip(folders, names_of(folders), strict=True)]
    _write(records, output, config.refresh)
    print(output, flush=True)
    while config.refresh and not all(record.finished for record in records):
        time.sleep(config.refresh)
        _write(records, output, config.refresh)


def _write(records: "list[RunRecord]", output: Path, refresh: float | None) -> None:
    from data.files import write_whole
    from train.report_page.document import document

    for record in records:
        record.read()
    over = all(record.finished for record in records)
    write_whole(output, document(records, None if over else refresh).encode())


if __name__ == "__main__":
    command("report", ReportConfig, report, verbatim=["run_dir", "output"])
