"""A machine that cannot connect to the Hugging Face hub is told so at once, in one line."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from harness_tasks import write_tasks
from huggingface_hub import constants

from data.config import DataError, SourceConfig
from data.sources import hub
from eval.lm.config import LmEvalConfig
from eval.lm.tasks import Tasks

ROOT = Path(__file__).parent.parent
NOWHERE = "http://127.0.0.1:9"  # the port of "discard", where nothing listens


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    hub.unreachable.cache_clear()
    yield
    hub.unreachable.cache_clear()


def test_a_source_of_the_hub() -> None:
    begun = time.monotonic()
    with pytest.raises(DataError, match=r"^hf://org/name: the hub cannot be reached \(.*refused\); from here, only"):
        hub.open_stream(SourceConfig(path="hf://org/name"))
    assert time.monotonic() - begun < 5


def test_local_files_need_no_hub(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}')
    assert [r["text"] for r in hub.records(hub.open_stream(SourceConfig(path=f"hf://{tmp_path}")))] == ["one"]
    assert hub.unreachable.cache_info().currsize == 0


def test_asked_to_stay_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.unreachable() == "HF_HUB_OFFLINE is set"


def test_tasks_take_what_the_cache_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    tasks = Tasks(LmEvalConfig(tasks=["local_text", "arc_easy"], include_path=str(write_tasks(tmp_path))))
    both, tasks.names = tasks.names, ["local_text"]
    tasks.load()
    assert hub.unreachable.cache_info().currsize == 0
    tasks.names = both
    with pytest.raises(
        DataError, match=r"^tasks=arc_easy: not in the cache, and the hub cannot be reached \(.*refused"
    ):
        tasks.load()
    assert constants.HF_HUB_OFFLINE


def test_the_command_ends_in_one_line(tmp_path: Path) -> None:
    command: list[Any] = [sys.executable, "-m", "data.prepare", "dataset.path=hf://org/name", f"output={tmp_path}/out"]
    result = subprocess.run(command, cwd=ROOT, env={"HF_ENDPOINT": NOWHERE}, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("error: hf://org/name: the hub cannot be reached")
    assert "Retrying" not in result.stderr
