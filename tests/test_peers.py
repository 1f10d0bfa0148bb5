"""Other projects' decoders beside ours: the same texts, each with its best setting, in rows and a table."""

import importlib.metadata
import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module

from conf.strict import ConfigError, register_schema
from eval.compare_peers import compare
from eval.engine.stopping import StopRule
from eval.measure.transformers_run import padded, up_to_end
from eval.peers.config import Peer, PeersConfig
from eval.peers.contest import Measurement
from eval.peers.systems import ECONOMIZE, Way, check_installed, modes_of
from eval.peers.table import PeerRow, ratio

register_schema("compare_peers", PeersConfig)
SMALL = [
    *("task.n_samples=2", "task.prompt_tokens=8", "task.max_new_tokens=8", "machine.dtype=float64", "grid_samples=1"),
    *("exit_layers=[2]", "num_speculations=[1,2]", "looked_up=[2]", "machine.threads=1", "systems=[transformers]"),
]


def call(*overrides: str) -> list[PeerRow]:
    with initialize_config_module("conf", version_base="1.3"):
        return compare(compose("compare_peers", list(overrides)))


def test_all_write_the_same(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [f"checkpoint={trained}", *SMALL, f"output={tmp_path}/peers.json"]
    rows = call(*asked)
    modes = ["plain", "self_speculation", "prompt_lookup"]
    assert [(r.way.system, r.way.mode) for r in rows] == [(s, m) for s in ("ours", "transformers") for m in modes]
    assert all(r.identical_output for r in rows)
    assert all(r.way.exit_layer == 2 and r.way.num_speculations in (1, 2) for r in rows if "self" in r.way.mode)
    found = json.loads((tmp_path / "peers.json").read_text())
    needed = {"system", "mode", "exit_layer", "num_speculations", "batch_size", "dtype", "compiled"}
    assert found[0].keys() >= needed | {"tokens_per_second", "identical_output", "ours_over_q25", "commit"}
    assert found[0]["ours_over"] == found[0]["speedup"] == 1
    (samples,) = tmp_path.glob("peers.samples-*.jsonl")
    n_lines = len(samples.read_text().splitlines())
    assert n_lines == 1 + 2 * (2 + 1) + 2 * 6, "a header; the grid of two systems on a prompt; six ways on two prompts"
    samples.write_text("".join(samples.read_text().splitlines(keepends=True)[:-3]))
    again = call(*asked)
    assert [r.way for r in again] == [r.way for r in rows]
    assert len(samples.read_text().splitlines()) == n_lines
    assert "transformers  self_speculation" in capsys.readouterr().out


def test_batches(trained: Path, tmp_path: Path) -> None:
    rows = call(f"checkpoint={trained}", *SMALL, "batch_size=2", f"output={tmp_path}/peers.json")
    assert [(r.way.system, r.way.mode) for r in rows if r.way.system != "ours"] == [("transformers", "plain")]
    assert all(r.identical_output for r in rows)


def test_prompts_of_one_length_and_texts_up_to_their_end() -> None:
    tokens, mask = padded([[5, 6, 7], [8]], torch.device("cpu"))
    assert (tokens.tolist(), mask.tolist()) == ([[5, 6, 7], [0, 0, 8]], [[1, 1, 1], [0, 0, 1]])
    stop = StopRule(max_new_tokens=9, eos_ids=frozenset({2}))
    assert up_to_end([4, 2, 0, 0], stop) == [4, 2]
    assert up_to_end([4, 0, 0], stop) == [4, 0, 0]


def test_what_a_system_can_do() -> None:
    assert modes_of(Peer.economize, 8) == ["plain", "self_speculation"]
    assert modes_of(Peer.transformers, 8) == ["plain"]


def test_a_missing_package_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "economize":
            raise importlib.metadata.PackageNotFoundError(name)
        return "5.24.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(ConfigError, match="economize is not installed here; `make peers` sets up"):
        check_installed(list(Peer))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: ECONOMIZE if name == "economize" else "5.24.0")
    with pytest.raises(ConfigError, match=r"transformers 5\.24\.0 is installed, economize is compared with 5\.23"):
        check_installed(list(Peer))
    check_installed([Peer.ours, Peer.transformers])


def test_bad_grids(trained: Path) -> None:
    with pytest.raises(ConfigError, match=r"exit_layers=4: must lie in 1\.\.3"):
        call(f"checkpoint={trained}", *SMALL, "exit_layers=[4]")
    with pytest.raises(ConfigError, match=r"machine\.weights=int8: has no effect on the other systems"):
        call(f"checkpoint={trained}", *SMALL, "machine.dtype=auto", "machine.weights=int8")
    for bad in ("looked_up=[0]", "num_speculations=[]", "grid_samples=0"):
        with pytest.raises(ConfigError, match=bad.partition("=")[0]):
            call(f"checkpoint={trained}", *SMALL, bad)


def test_ratios_are_paired() -> None:
    def took(*seconds: float) -> list[Measurement]:
        way = Way("ours", "plain")
        return [
            Measurement(stage="contest", batch=i, way=way, seconds=s, cpu_seconds=s, tokens=[[1, 2]])
            for i, s in enumerate(seconds)
        ]

    found = ratio(took(2, 40, 6), took(1, 10, 2))
    assert (found.value, found.q25, found.q75) == (3, 2.5, 3.5)
    assert str(found) == "3.00 [2.50, 3.50]"
