"""Copy the code and the resolved configuration of a run into its folder: `python -m train.snapshot experiment=demo`.

Takes train.pretrain's arguments, checks them, and prints the snapshot's folder, <run_dir>/code/NAME. The scripts of
slurm/ train from there, so that edits do not change a job that waits in a queue or is requeued. NAME is $SNAPSHOT, or
the time; a snapshot that exists is left as it is. $WORLD_SIZE is the number of ranks, where it is known already.
"""

import math
import os
import shutil
import time
from pathlib import Path

import yaml
from omegaconf import DictConfig

from conf.command import command
from conf.provenance import COPIED, REVISION, ROOT, code_revision
from train.config import PretrainConfig
from train.cost.gpu import check_gpu
from train.resolve import resolve


def snapshot(raw: DictConfig) -> None:
    """Check the configuration, write the snapshot if it is not there, and print its folder."""
    degrees = raw.parallelism
    fewest = math.prod(degrees[key] or 1 for key in ("replicate", "shard", "tensor", "context"))
    config = resolve(raw, int(os.environ.get("WORLD_SIZE", fewest)))
    if "SLURM_JOB_ID" in os.environ:  # in the job, not when it is submitted
        check_gpu(config)
    folder = Path(config.run_dir, "code", os.environ.get("SNAPSHOT", time.strftime("%Y-%m-%d-%H%M%S"))).absolute()
    if not folder.exists():
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        for name in COPIED:
            shutil.copytree(ROOT / name, partial / name, ignore=shutil.ignore_patterns("__pycache__"))
        (partial / REVISION).write_text(code_revision() + "\n")
        from conf.run_folders import CONFIG
        from train.run_dir import resolved

        (partial / CONFIG).write_text(yaml.safe_dump(resolved(config), sort_keys=False))
        partial.rename(folder)
    print(folder)


if __name__ == "__main__":
    command("pretrain", PretrainConfig, snapshot, check=lambda raw: resolve(raw, world_size=1), own_output="run_dir")
