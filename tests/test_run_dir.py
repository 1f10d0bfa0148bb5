"""The run folder: what continues, what is refused, and metrics cut back to a checkpoint."""

import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import compose_config

from conf.metrics_file import read_metrics
from conf.strict import ConfigError
from train import run_dir

CORPUS: Any = SimpleNamespace(
    tokenizer=SimpleNamespace(files={"tokenizer.model": b"pieces"}),
    facts={"train_documents": 9, "train_tokens": 1234},
    digests={"stdlib": "0123"},
    token_counts=lambda vocab_size: np.arange(vocab_size),
)


def checkpoint(folder: Path, step: int, complete: bool = True) -> None:
    path = folder / "checkpoint" / f"step-{step}"
    path.mkdir(parents=True)
    (path / "__0_0.distcp").touch()
    if complete:
        (path / ".metadata").touch()


def config(folder: Path, *overrides: str) -> run_dir.PretrainConfig:
    return compose_config(f"run_dir={folder}", *overrides)


def started(folder: Path) -> None:
    folder.mkdir()
    run_dir.start(config(folder), CORPUS, 1)
    checkpoint(folder, 20)


def test_last_checkpoint_is_the_newest_complete_one(tmp_path: Path) -> None:
    assert run_dir.last_checkpoint(tmp_path / "none") == 0
    checkpoint(tmp_path, 90)
    checkpoint(tmp_path, 100)
    checkpoint(tmp_path, 110, complete=False)
    assert run_dir.last_checkpoint(tmp_path) == 100


def test_metrics_are_cut_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": s, "train/objective": 0.1 + s} for s in (10, 20, 30)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows) + '{"step": 40, "tr')
    assert read_metrics(path) == rows
    run_dir.cut_metrics(path, 20)
    assert path.read_text() == "".join(json.dumps(r) + "\n" for r in rows[:2])
    run_dir.cut_metrics(path, 0)
    assert path.read_text() == ""


def test_start_writes_down_what_it_starts(tmp_path: Path) -> None:
    started(tmp_path / "run")
    folder = tmp_path / "run"
    assert run_dir.changed_keys(config(folder)) == {}
    run_dir.start(config(folder), CORPUS, 1)
    first, second = [json.loads(line) for line in (folder / "starts.jsonl").read_text().splitlines()]
    assert (first["from_step"], second["from_step"]) == (0, 20)
    assert {"command", "revision", "versions", "ranks", "host", "time"} <= first.keys()


def test_differences_are_told_by_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    started(tmp_path / "run")
    changed = config(tmp_path / "run", "optimizer.lr=0.5", "layer_dropout=exp")
    assert run_dir.changed_keys(changed) == {"optimizer.lr": (0.001, 0.5), "layer_dropout.p_max": (0.0, 0.1)}
    run_dir.check_continues(changed, CORPUS)
    run_dir.start(changed, CORPUS, 1)
    assert "optimizer.lr: 0.001 -> 0.5" in caplog.text


def test_another_model_or_tokenizer_is_refused(tmp_path: Path) -> None:
    started(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"model\.n_layers=8: the checkpoints in run_dir=.* have 6"):
        run_dir.check_continues(config(tmp_path / "run", "model.n_layers=8"), CORPUS)
    other: Any = SimpleNamespace(**vars(CORPUS) | {"tokenizer": SimpleNamespace(files={"tokenizer.model": b"others"})})
    with pytest.raises(ConfigError, match=r"data\.tokenizer: not the tokenizer of the checkpoints"):
        run_dir.check_continues(config(tmp_path / "run"), other)


MORE = ["+dataset@data.sources.more=text", "data.sources.more.path=x", "data.sources.more.weight=1"]
OTHER_ROWS = [
    (["train.seq_len=128"], r"train\.seq_len=128: the checkpoints in run_dir=.* have 256; .*checkpoint\.initial="),
    (["train.seed=1"], r"train\.seed=1: the checkpoints"),
    (["data.packing=best_fit"], r"data\.packing=best_fit: the checkpoints"),
    (["data.sources.stdlib.weight=2"], r"data\.sources\.stdlib\.weight=2\.0: the checkpoints"),
    ([*MORE, "data.sources.stdlib.weight=1"], r"data\.sources\.more is new: the checkpoints .* of other sources"),
    (["data=text", "data.source=x"], r"data\.sources\.stdlib is missing: the checkpoints .* of other sources"),
]


@pytest.mark.parametrize(("changes", "message"), OTHER_ROWS)
def test_other_rows_are_refused(tmp_path: Path, changes: list[str], message: str) -> None:
    """A position in the data means nothing there."""
    started(tmp_path / "run")
    with pytest.raises(ConfigError, match=message):
        run_dir.check_continues(config(tmp_path / "run", *changes), CORPUS)


def test_changed_text_is_refused(tmp_path: Path) -> None:
    started(tmp_path / "run")
    changed: Any = SimpleNamespace(**vars(CORPUS) | {"facts": {"train_documents": 9, "train_tokens": 1235}})
    with pytest.raises(ConfigError, match=r"has 1,235 train_tokens, but the checkpoints in .* are of 1,234"):
        run_dir.check_continues(config(tmp_path / "run"), changed)


def test_text_with_as_many_tokens_as_before_is_refused(tmp_path: Path) -> None:
    started(tmp_path / "run")
    changed: Any = SimpleNamespace(**vars(CORPUS) | {"digests": {"stdlib": "4567"}})
    with pytest.raises(ConfigError, match=r"data\.sources\.stdlib: as many tokens as before, but others than"):
        run_dir.check_continues(config(tmp_path / "run"), changed)


DAMAGES = [
    ("config.yaml", b"", r"config\.yaml: damaged \(empty\)"),
    ("config.yaml", b"{]\x00", r"config\.yaml: damaged \(.*\)"),
    ("config.yaml", b"\xff\xfe", r"config\.yaml: damaged \('utf-8' codec"),
    ("config.yaml", None, r"config\.yaml: missing"),
    ("corpus.json", b"{", r"corpus\.json: damaged \(.*\)"),
    ("corpus.json", None, r"corpus\.json: missing"),
]


@pytest.mark.parametrize(("name", "content", "message"), DAMAGES)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    started(tmp_path / "run")
    (tmp_path / "run" / name).unlink() if content is None else (tmp_path / "run" / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message) as error:
        run_dir.check_continues(config(tmp_path / "run"), CORPUS)
    assert "\n" not in str(error.value)


def test_a_tokenizer_that_is_gone_is_put_back(tmp_path: Path) -> None:
    started(tmp_path / "run")
    (tmp_path / "run" / "tokenizer.model").unlink()
    other: Any = SimpleNamespace(**vars(CORPUS) | {"tokenizer": SimpleNamespace(files={"tokenizer.model": b"others"})})
    with pytest.raises(ConfigError, match=r"tokenizer\.model: missing, and data\.tokenizer is not the tokenizer of"):
        run_dir.check_continues(config(tmp_path / "run"), other)
    run_dir.check_continues(config(tmp_path / "run"), CORPUS)
    run_dir.start(config(tmp_path / "run"), CORPUS, 1)
    assert (tmp_path / "run" / "tokenizer.model").read_bytes() == b"pieces"


def test_damaged_lines_of_metrics_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n\xff\xfe\n{"step": 2\n[3]\n{"step": 4}\n{"step": 5')
    assert read_metrics(path) == [{"step": 1}, {"step": 4}]
    assert "3 damaged lines" in caplog.text


def test_files_are_replaced_as_a_whole(tmp_path: Path) -> None:
    """Each file is whole at any moment: others may read it, and the process may be killed."""
    started(tmp_path / "run")
    before = {f.name: f.stat().st_ino for f in (tmp_path / "run").iterdir()}
    run_dir.start(config(tmp_path / "run", "optimizer.lr=0.5"), CORPUS, 1)
    after = {f.name: f.stat().st_ino for f in (tmp_path / "run").iterdir()}
    assert before.keys() == after.keys()
    for name in ("config.yaml", "corpus.json", "tokenizer.model"):
        assert before[name] != after[name], f"{name} was written in place"


def test_two_processes_cannot_share_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    held = run_dir.lock(tmp_path, 0)
    holder = rf"pid {os.getpid()} on {socket.gethostname()}"
    with pytest.raises(
        ConfigError, match=rf"another process is training there, {holder}; .*cluster\.lock_seconds=1\.5"
    ):
        run_dir.lock(tmp_path, 1.5)
    assert f"is held by {holder}; waiting for it, at most 0 s more" in caplog.text
    held.release()
    run_dir.lock(tmp_path, 0).release()
