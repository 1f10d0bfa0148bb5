"""Fixtures and helpers: tiny sizes, composed configs, and functions run on gloo ranks."""

import argparse
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.multiprocessing as mp
from browser import Browser, chromium
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from conf.strict import register_schema
from eval.sandbox.limits import SandboxError
from eval.sandbox.run import available
from models.config import ModelConfig
from train.config import PretrainConfig
from train.cpu import prepare_torchtitan
from train.monitoring.console import set_up_logging
from train.resolve import resolve

prepare_torchtitan()
torch.set_num_threads(1)  # tiny tensors: threads would wait for each other
register_schema("pretrain", PretrainConfig)

TINY_TEXT = Path(argparse.__file__).read_text()

# A run that takes seconds: 4 layers on a few kilobytes of text.
TINY_RUN = [
    "model.dim=32",
    "model.n_layers=4",
    "model.n_heads=2",
    "model.n_kv_heads=1",
    "model.ffn_dim=48",
    "model.vocab_size=400",
    "data=text",
    "train.seq_len=32",
    "train.global_batch_size=8",
    "train.local_batch_size=2",
    "train.log_every=1",
    "validation.tokens=64",
    "validation.final_tokens=256",
    "wandb.mode=disabled",
]


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """A training in this process listens to signals, and ignores them in the end."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


LONGEST = (
    *("wandb", "parallelism", "sampling", "pretrain", "initial", "resume", "checkpoint", "perplexity", "scaling"),
    *("extending", "same_distribution", "correctness", "damage", "hub", "serving", "preemption", "ranks", "multirun"),
)
"""Files that take from half a minute on. They begin first: none is left in the end for one worker alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts the files by how long they take; the order of a file's tests stays."""
    rank = {f"test_{name}": i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONGEST)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips tests of the sandbox where a machine allows none, unless REQUIRE_SANDBOX=1, which lets them fail."""
    if item.get_closest_marker("sandbox") and os.environ.get("REQUIRE_SANDBOX") != "1":
        try:
            available()
        except SandboxError as error:
            pytest.skip(str(error))


def compose_raw(*overrides: str) -> DictConfig:
    with initialize_config_module("conf", version_base="1.3"):
        return compose("pretrain", list(overrides))


def compose_config(*overrides: str, world_size: int = 1) -> PretrainConfig:
    return resolve(compose_raw(*overrides), world_size)


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of repetitive code, and a place for the cache beside it."""
    folder = tmp_path_factory.mktemp("corpus") / "text"
    folder.mkdir()
    (folder / "a.py").write_text(TINY_TEXT)
    return folder


@pytest.fixture(scope="session")
def tiny_run(tiny_text: Path) -> list[str]:
    """The overrides of a run of seconds."""
    return [*TINY_RUN, f"data.source={tiny_text}", f"data.cache_dir={tiny_text.parent / 'cache'}"]


@pytest.fixture
def threads_as_before() -> Iterator[None]:
    """Leaves torch's number of threads as a test has found it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Writes run folders for eval.figures."""
    from figure_runs import maker  # it imports matplotlib, which ranks need not

    return maker(tmp_path / "runs")


def tiny_model(**changes: Any) -> ModelConfig:
    sizes: dict[str, Any] = {
        "name": "tiny",
        "dim": 32,
        "n_layers": 4,
        "n_heads": 4,
        "n_kv_heads": 2,
        "ffn_dim": 48,
        "vocab_size": 96,
        "max_seq_len": 64,
    }
    return ModelConfig(**sizes | changes)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def run_ranks(function: Callable[..., None], world_size: int, *args: Any) -> None:
    """Call a top-level function as function(rank, *args) in `world_size` fresh processes set up as by torchrun.

    They are forks of a process that has only imported what they need, which takes seconds for each otherwise.
    """
    multiprocessing.set_forkserver_preload(["training"])
    with patch.dict(
        os.environ, PYTHONPATH=os.pathsep.join(sys.path)
    ):  # Python 3.11's server has no other way to see it
        forkserver.ensure_running()
    arguments = (function, world_size, free_port(), args)
    mp.start_processes(_rank, arguments, nprocs=world_size, start_method="forkserver")


def _rank(rank: int, function: Callable[..., None], world_size: int, port: int, args: tuple[Any, ...]) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
    }
    import torch
    import torchtitan.trainer

    warnings.simplefilter("ignore")
    set_up_logging(rank)
    torch.set_num_threads(1)
    torchtitan.trainer.time.sleep = lambda seconds: None  # the courtesy at the end of a run
    function(rank, *args)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A Chromium, for the tests of one file."""
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_run: list[str]) -> Path:
    """A run folder that training has left: 4 layers, 40 steps."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    command = [sys.executable, "-m", "train.pretrain", *tiny_run, "early_exit=all", "optimizer=adamw_small"]
    command += ["train.steps=40", "checkpoint.every=40", f"run_dir={folder}"]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder
