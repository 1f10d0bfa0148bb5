"""The folder of a run: it explains the run, and the same folder again continues it.

config.yaml (resolved), starts.jsonl (one line per start: command, code revision, versions, machine), tokenizer,
corpus.json (counts of the text, and what compressors make of it),
metrics.jsonl, bad_steps.jsonl (skipped steps and their rows), checkpoint/step-N (DCP), wandb/, plots.
"""

import json
import logging
import os
import platform
import re
import shlex
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from conf.provenance import code_revision
from conf.strict import ConfigError
from data.corpus import Corpus
from data.files import write_whole
from models.storage.checkpoints import complete_checkpoints
from train.config import PretrainConfig
from train.folder_lock import FolderLock

logger = logging.getLogger(__name__)

CORPUS = "corpus.json"
BAD_STEPS = "bad_steps.jsonl"
# A checkpoint does not fit another model, and its position in the data means nothing for other rows. Everything else
# may change, with a warning.
FIXED = re.compile(
    r"model\.(?!name)|train\.(seq_len|seed)|data\.(packing|stream_lanes|validation_fraction)|"
    r"data\.sources\.\w+\.(?!path|validation|revision)"
)


def last_checkpoint(run_dir: str | Path) -> int:
    """The step of the newest complete checkpoint, or 0."""
    return max(complete_checkpoints(run_dir), default=0)


def lock(run_dir: str | Path) -> FolderLock:
    """Hold a run folder. Raises ConfigError when another process trains there.

    A killed process lets go of it, but may take a moment to die, with much memory to give back.
    """
    Path(run_dir).mkdir(parents=True, exist_ok=True)
    held = FolderLock(Path(run_dir, ".lock"))
    try:
        held.acquire(seconds=5)
    except TimeoutError:
        raise ConfigError(
            f"run_dir={run_dir}: another process is training there; wait for it or choose another"
        ) from None
    return held


def check_continues(config: PretrainConfig, corpus: Corpus) -> None:
    """Raise ConfigError when the folder holds checkpoints of another model, another tokenizer or other rows."""
    folder = Path(config.run_dir)
    if not complete_checkpoints(folder):
        return
    different = changed_keys(config)
    for key, (old, new) in different.items():
        if key.startswith("data.sources.") and key.endswith(".path") and None in (old, new):
            what = "is missing" if new is None else "is new"
            raise ConfigError(
                f"{key.removesuffix('.path')} {what}: the checkpoints in run_dir={folder} are of other sources; choose"
                f" another run_dir (and checkpoint.initial={folder} to start from its weights)"
            )
    for key, (old, new) in different.items():
        if FIXED.match(key):
            go_on = "" if key.startswith("model.") else f" (and checkpoint.initial={folder} to start from its weights)"
            raise ConfigError(
                f"{key}={new}: the checkpoints in run_dir={folder} have {old}; choose another run_dir{go_on}"
            )
    for path in {source.path for source in config.data.sources.values()} & config.plugins.keys():
        if f"plugins.{path}" in different:
            raise ConfigError(
                f"{path}: its file has changed since the checkpoints in run_dir={folder}; choose another run_dir"
                f" (and checkpoint.initial={folder} to start from its weights)"
            )
    seen = json.loads((folder / CORPUS).read_text()) if (folder / CORPUS).exists() else {}
    for key in ("train_documents", "train_tokens"):
        if seen.get(key) != corpus.facts.get(key):
            raise ConfigError(
                f"data: has {corpus.facts.get(key, 0):,} {key}, but the checkpoints in run_dir={folder} are of"
                f" {seen.get(key, 0):,}: the text has changed; choose another run_dir"
                f" (and checkpoint.initial={folder} to start from its weights)"
            )
    for name, content in corpus.tokenizer.files.items():
        if not (folder / name).exists() or (folder / name).read_bytes() != content:
            raise ConfigError(
                f"data.tokenizer: not the tokenizer of the checkpoints in run_dir={folder};"
                f" choose another run_dir, or keep it with data.tokenizer.path={folder / name}"
            )


def changed_keys(config: PretrainConfig) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ from those the folder was last started with: (old, new)."""
    path = Path(config.run_dir, "config.yaml")
    if not path.exists():
        return {}
    old, new = _flatten(yaml.safe_load(path.read_text())), _flatten(resolved(config))
    keys = sorted(old.keys() | new.keys())
    return {k: (old.get(k), new.get(k)) for k in keys if old.get(k) != new.get(k)}


def resolved(config: PretrainConfig) -> dict[str, Any]:
    """The config as plain values, as config.yaml holds it."""
    plain = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    assert isinstance(plain, dict)
    return {str(k): v for k, v in plain.items()}


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def start(config: PretrainConfig, corpus: Corpus, world_size: int) -> None:
    """Write down what is started, and cut the metrics back to the checkpoint it continues from. For rank 0 alone."""
    folder = Path(config.run_dir)
    step = last_checkpoint(folder)
    for key, (old, new) in changed_keys(config).items() if step else ():
        logger.warning("changed since the run's last start: %s: %s -> %s", key, old, new)
    (folder / "config.yaml").write_text(yaml.safe_dump(resolved(config), sort_keys=False))
    (folder / CORPUS).write_text(json.dumps(corpus.facts, indent=2) + "\n")
    for name, content in corpus.tokenizer.files.items():
        (folder / name).write_bytes(content)
    with (folder / "starts.jsonl").open("a") as stream:
        stream.write(json.dumps(_provenance(step, world_size)) + "\n")
    cut_logs(folder, step)


def _provenance(step: int, world_size: int) -> dict[str, Any]:
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "from_step": step,
        "command": shlex.join([sys.executable, *sys.orig_argv[1:]]),
        "revision": code_revision(),
        "versions": {p: version(p) for p in ("torch", "torchtitan", "torchdata", "sentencepiece", "numpy")},
        "python": platform.python_version(),
        "host": platform.node(),
        "ranks": world_size,
        "threads": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count())),
    }


def cut_logs(run_dir: str | Path, step: int) -> None:
    """Drop what was logged after a step. For rank 0 alone."""
    for name in ("metrics.jsonl", BAD_STEPS):
        cut_metrics(Path(run_dir, name), step)


def cut_metrics(path: Path, step: int) -> None:
    """Drop the lines after a step, and a line that a kill has left half written."""
    if not path.exists():
        return
    kept = [json.dumps(row) for row in read_metrics(path) if row["step"] <= step]
    write_whole(path, "".join(line + "\n" for line in kept).encode())


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, less a half-written last line."""
    rows = []
    for line in Path(path).read_text().split("\n"):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows
