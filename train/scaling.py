"""Weak scaling on this machine: `python -m train.scaling scaling.output=FILE ...`, with every option of train.pretrain.

On several nodes the same comparison is that of train/tokens_per_second in the runs' metrics.jsonl: docs/scaling.md.
"""

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig

from conf.command import command
from conf.output import writable
from conf.progress import progress
from conf.strict import ConfigError, convert, register_schema
from train.config import PretrainConfig
from train.cost.scaling_runs import ScalingConfig, measured_row, scaling_table


def scale(raw: DictConfig) -> None:
    """Check the configuration of every number of ranks, run one after the other, print the table, write the rows."""
    from data.files import write_whole
    from train.resolve import resolve

    options = convert(raw, ScalingConfig).scaling
    local = raw.train.local_batch_size
    if local is None:
        raise ConfigError("train.local_batch_size=null: weak scaling needs the rows of a rank, a number")
    configs = {}
    for ranks in options.ranks:
        of_rows = raw.copy()
        own = max(1, ranks // (raw.parallelism.tensor * raw.parallelism.context))
        of_rows.train.global_batch_size = local * own
        configs[ranks] = resolve(of_rows, ranks, ScalingConfig)
    output = writable(options.output, "scaling.output")
    words = [word for word in sys.argv[1:] if not word.startswith("scaling.")]
    rows, base = [], None
    with progress("ranks", unit="run", total=len(configs)) as bar:
        for ranks, config in configs.items():
            with tempfile.TemporaryDirectory(dir=output.parent, prefix="scaling-") as folder:
                row = measured_row(config, options, words, ranks, Path(folder) / "run", base)
            base = base or row.tokens_per_second / row.processors
            rows.append(row)
            bar.update()
    write_whole(output, json.dumps([asdict(row) for row in rows], indent=1).encode())
    print(scaling_table(rows))
    print(output)


if __name__ == "__main__":
    register_schema("pretrain", PretrainConfig)  # conf/scaling.yaml builds on conf/pretrain.yaml
    command("scaling", ScalingConfig, scale)
