"""The folder of a run: it explains the run, and the same folder again continues it.

config.yaml (resolved), starts.jsonl (one line per start: command, code revision, versions, machine), tokenizer,
corpus.json (counts and digests of the text, and what compressors make of it), exit_status (of the last start, if it was
not killed), metrics.jsonl, bad_steps.jsonl (skipped steps and their rows), checkpoint/step-N (DCP), wandb/, plots.
"""

import json
import logging
import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from conf.errors import reason
from conf.metrics_file import METRICS, read_metrics
from conf.provenance import code_revision
from conf.run_folders import CONFIG, CORPUS, TOKEN_COUNTS
from conf.strict import ConfigError
from data.corpus import Corpus
from data.files import write_whole, write_whole_array
from data.prepared.shards import tokenizer_hash
from models.storage.checkpoints import complete_checkpoints
from train.cluster.folder_lock import FolderLock
from train.config import PretrainConfig

logger = logging.getLogger(__name__)

STARTS = "starts.jsonl"
LOCK = ".lock"
BAD_STEPS = "bad_steps.jsonl"
EXIT_STATUS = "exit_status"
# A checkpoint does not fit another model, and its position in the data means nothing for other rows. Everything else
# may change, with a warning.
FIXED = re.compile(
    r"model\.(?!name)|train\.(seq_len|seed)|data\.(packing|stream_lanes|validation_fraction)|"
    r"data\.sources\.\w+\.(?!path|validation|revision)"
)


def last_checkpoint(run_dir: str | Path) -> int:
    """The step of the newest complete checkpoint, or 0."""
    return max(complete_checkpoints(run_dir), default=0)


def lock(run_dir: str | Path, seconds: float) -> FolderLock:
    """Hold a run folder. Raises ConfigError when another process trains there for as many seconds.

    A killed process lets go of it, but may take a moment to die, with much memory to give back; and a network file
    system may hold on to the lock of a node that is dead.
    """
    Path(run_dir).mkdir(parents=True, exist_ok=True)
    held = FolderLock(Path(run_dir, LOCK))
    try:
        held.acquire(seconds)
    except TimeoutError as error:
        raise ConfigError(
            f"run_dir={run_dir}: another process is training there, {error}; wait for it, end it or choose another"
            f" (waited for cluster.lock_seconds={seconds:g})"
        ) from None
    return held


def check_continues(config: PretrainConfig, corpus: Corpus) -> None:
    """Raise ConfigError when the folder holds checkpoints of another model, another tokenizer or other rows."""
    folder = Path(config.run_dir)
    if not complete_checkpoints(folder):
        return
    different = changed_keys(config)
    go_on = f"choose another run_dir (and checkpoint.initial={folder} to start from its weights)"
    for key, (old, new) in different.items():
        if key.startswith("data.sources.") and key.endswith(".path") and None in (old, new):
            what = "is missing" if new is None else "is new"
            raise ConfigError(
                f"{key.removesuffix('.path')} {what}: the checkpoints in run_dir={folder} are of other sources; {go_on}"
            )
    for key, (old, new) in different.items():
        if FIXED.match(key):
            remedy = "choose another run_dir" if key.startswith("model.") else go_on
            raise ConfigError(f"{key}={new}: the checkpoints in run_dir={folder} have {old}; {remedy}")
    for path in {source.path for source in config.data.sources.values()} & config.plugins.keys():
        if f"plugins.{path}" in different:
            raise ConfigError(f"{path}: its file has changed since the checkpoints in run_dir={folder}; {go_on}")
    _check_corpus(folder, corpus, go_on)


def _check_corpus(folder: Path, corpus: Corpus, go_on: str) -> None:
    seen = _read(folder / CORPUS, json.loads)
    for key in ("train_documents", "train_tokens"):
        if seen.get(key) != corpus.facts.get(key):
            raise ConfigError(
                f"data: has {corpus.facts.get(key, 0):,} {key}, but the checkpoints in run_dir={folder} are of"
                f" {seen.get(key, 0):,}: the text has changed; {go_on}"
            )
    for name, digest in corpus.digests.items():
        if seen.get("digests", {}).get(name) != digest:
            raise ConfigError(
                f"data.sources.{name}: as many tokens as before, but others than those of the checkpoints in"
                f" run_dir={folder}: the text has changed; {go_on}"
            )
    for name, content in corpus.tokenizer.files.items():
        path = folder / name
        if path.exists() and path.read_bytes() != content:
            raise ConfigError(
                f"data.tokenizer: not the tokenizer of the checkpoints in run_dir={folder};"
                f" choose another run_dir, or keep it with data.tokenizer.path={path}"
            )
        if not path.exists() and seen.get("tokenizer") != tokenizer_hash(corpus.tokenizer):
            raise ConfigError(
                f"{path}: missing, and data.tokenizer is not the tokenizer of the checkpoints in run_dir={folder};"
                " put the file back, or choose another run_dir"
            )


def _read(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """What a file of a run with checkpoints holds. Raises ConfigError when it is missing or damaged."""
    try:
        if isinstance(content := parse(path.read_text()), dict):
            return content
        problem = "damaged (empty)" if content is None else "damaged (no table of keys)"
    except FileNotFoundError:
        problem = "missing"
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({reason(error)})") from None
    except (ValueError, yaml.YAMLError) as error:
        problem = f"damaged ({reason(error)})"
    raise ConfigError(
        f"{path}: {problem}, so that nobody can tell whether the checkpoints beside it are of this configuration and"
        f" text; put the file back, or choose another run_dir (and checkpoint.initial={path.parent} to start from its"
        " weights)"
    )


def changed_keys(config: PretrainConfig) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ from those the folder was last started with: (old, new)."""
    old, new = flatten(_read(Path(config.run_dir, CONFIG), yaml.safe_load)), flatten(resolved(config))
    keys = sorted(old.keys() | new.keys())
    return {k: (old.get(k), new.get(k)) for k in keys if old.get(k) != new.get(k)}


def resolved(config: PretrainConfig) -> dict[str, Any]:
    """The config as plain values, as config.yaml holds it."""
    plain = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    assert isinstance(plain, dict)
    return {str(k): v for k, v in plain.items()}


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one table of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def start(config: PretrainConfig, corpus: Corpus, world_size: int) -> None:
    """Write down what is started, and cut the metrics back to the checkpoint it continues from. For rank 0 alone."""
    folder = Path(config.run_dir)
    step = last_checkpoint(folder)
    for key, (old, new) in changed_keys(config).items() if step else ():
        logger.warning("changed since the run's last start: %s: %s -> %s", key, old, new)
    text = corpus.facts | {"digests": corpus.digests, "tokenizer": tokenizer_hash(corpus.tokenizer)}
    for name, content in corpus.tokenizer.files.items():
        write_whole(folder / name, content)
    write_whole(folder / CORPUS, (json.dumps(text, indent=2) + "\n").encode())
    write_whole_array(folder / TOKEN_COUNTS, corpus.token_counts(config.model.vocab_size))
    write_whole(folder / CONFIG, yaml.safe_dump(resolved(config), sort_keys=False).encode())
    (folder / EXIT_STATUS).unlink(missing_ok=True)
    with (folder / STARTS).open("a") as stream:
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


def goes_on_from(run_dir: str | Path, step: int) -> None:
    """Say which step this start goes on from, which is an earlier one than was thought if the newest checkpoint is
    damaged, and drop what was logged after it. For rank 0 alone.
    """
    path = Path(run_dir, STARTS)
    *before, last = path.read_text().splitlines()
    start = json.loads(last) | {"from_step": step}
    write_whole(path, "".join(line + "\n" for line in (*before, json.dumps(start))).encode())
    cut_logs(run_dir, step)


def cut_logs(run_dir: str | Path, step: int) -> None:
    """Drop what was logged after a step. For rank 0 alone."""
    for name in (METRICS, BAD_STEPS):
        cut_metrics(Path(run_dir, name), step)


def cut_metrics(path: Path, step: int) -> None:
    """Drop the lines after a step, and a line that a kill has left half written."""
    if not path.exists():
        return
    kept = [json.dumps(row) for row in read_metrics(path) if row["step"] <= step]
    write_whole(path, "".join(line + "\n" for line in kept).encode())


def write_exit_status(run_dir: str | Path, status: int) -> None:
    """Leave the exit status in the run folder, if there is one."""
    if Path(run_dir).is_dir():
        write_whole(Path(run_dir, EXIT_STATUS), f"{status}\n".encode())
