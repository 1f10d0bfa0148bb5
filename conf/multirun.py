"""`--multirun`: every combination of the listed values as a job of its own, one after another.

Hydra's launcher would run the jobs in this process and under folders of its own. Here each is the command that a user
would have typed, in a process of its own, so that a job that is killed or finished is treated like any other run.

`--jobs` prints those commands' arguments instead, a line each, for whoever else runs them (slurm/sweep.sh).
"""

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from conf.strict import ConfigError

LIST_JOBS = "--jobs"
FLAGS = ("--multirun", "-m", LIST_JOBS)
# Names of files and folders end at 255 bytes.
LONGEST_NAME = 120


class Job(NamedTuple):
    """One combination."""

    name: str
    """Its swept values, as a file or folder may be called."""
    overrides: list[str]


def is_multirun(words: Sequence[str]) -> bool:
    """Whether the command line asks for several jobs, or for a list of them."""
    return any(word in FLAGS for word in words)


def jobs_of(words: Sequence[str], quoted: Callable[[str], str]) -> list[Job]:
    """The jobs of a command line, in the order of the values, the last key's changing fastest.

    Args:
        words: as the user wrote them.
        quoted: what Hydra's grammar reads in place of a word.

    Raises ConfigError for flags of Hydra beside it, and for a command line without several values.
    """
    flags = [word for word in words if word.startswith("-") and word not in FLAGS]
    if flags:
        raise ConfigError(f"--multirun: cannot be combined with {flags[0]}")
    choices: list[list[tuple[str, str]]] = []
    words = [word for word in words if word not in FLAGS]
    overrides = OverridesParser.create().parse_overrides([quoted(word) for word in words])
    for word, override in zip(words, overrides, strict=True):
        if override.is_sweep_override():
            key = override.get_key_element()
            values = [f"{key}={value}" for value in override.sweep_string_iterator()]
            choices.append([(f"{override.key_or_group}={value.partition('=')[2]}", value) for value in values])
        else:
            choices.append([("", word)])
    combinations = [list(combination) for combination in itertools.product(*choices)]
    if len(combinations) < 2:
        raise ConfigError("--multirun: no key has several values; list them, optimizer.lr=1e-3,3e-4")
    names = [re.sub(r"[^\w.=,+-]+", "_", ",".join(name for name, _ in c if name)) for c in combinations]
    if len(set(names)) < len(names) or max(map(len, names)) > LONGEST_NAME:
        names = [f"job_{i}" for i in range(1, len(names) + 1)]
    return [Job(name, [text for _, text in c]) for name, c in zip(names, combinations, strict=True)]


def with_own_output(job: Job, raw: DictConfig, key: str, *, verbatim: bool) -> Job:
    """The job with a file or folder of its own under the one that `key` names, unless it names none or differs anyway.

    `verbatim` says that the command takes the key's value as it is, without the quotes of Hydra's grammar.
    outputs/demo becomes outputs/demo/optimizer.lr=1e-3, table.json becomes table.optimizer.lr=1e-3.json.
    """
    value = OmegaConf.select(raw, key, throw_on_missing=False)
    if value is None or f"{key}=" in job.name:
        return job
    path = Path(str(value))
    own = path.with_name(f"{path.stem}.{job.name}{path.suffix}") if path.suffix else path / job.name
    kept = [text for text in job.overrides if not text.startswith(f"{key}=")]
    return job._replace(overrides=[*kept, f"{key}={own}" if verbatim else f"{key}='{own}'"])


def run_all(jobs: Sequence[Job], say: Callable[[str], None]) -> int:
    """Run each with this process's interpreter and module, also after one that failed; the exit status of all."""
    if "RANK" in os.environ:
        raise ConfigError("--multirun: not under torchrun; start one torchrun for each job")
    interpreter = [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv[1:])]]
    failed = []
    for number, job in enumerate(jobs, 1):
        say(f"job {number} of {len(jobs)}: {job.name}")
        if subprocess.run([*interpreter, *job.overrides]).returncode:
            failed.append(job.name)
    if failed:
        say(f"{len(failed)} of {len(jobs)} jobs failed: {'; '.join(failed)}")
    return 1 if failed else 0
