"""A measurement goes on where it was whatever was committed since, and never takes the place of another."""

import json
import shutil
from pathlib import Path

import pytest
from test_benchmark import SMALL, Counting, call, ledger, texts

from eval.config import GenerateConfig, Mode
from eval.engine.checkpoint import open_checkpoint
from eval.engine.policy import SelfSpeculative
from eval.measure import contest
from eval.policies import choose_policy

ARGUMENTS = [*SMALL, "machine.dtype=float64", "transformers=false"]


def test_another_commit_and_another_place_go_on(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*ARGUMENTS, f"output={tmp_path}/out.json"]
    monkeypatch.setattr("eval.machine.code_revision", lambda: "a" * 40)
    # 7 settings run once before, and then for each of 2 samples: killed in the second.
    monkeypatch.setattr(contest, "timed_together", Counting(interrupted_at=7 + 7 + 3))
    with pytest.raises(KeyboardInterrupt):
        call(f"checkpoint={trained}", *given)
    begun = texts(ledger(tmp_path))
    assert len(begun) == 7
    monkeypatch.setattr("eval.machine.code_revision", lambda: "b" * 40 + "+changes")
    monkeypatch.setattr(contest, "timed_together", counting := Counting())
    moved = tmp_path / "moved"
    moved.symlink_to(trained)
    rows = call(f"checkpoint={moved}", *given)
    assert counting.n == 7 + 7, "the first sample is not measured again"
    assert texts(ledger(tmp_path))[:7] == begun
    assert {row["commit"] for row in rows} == {"b" * 40 + "+changes"}
    assert "begins anew" not in capsys.readouterr().out


def test_other_code_begins_anew_and_says_so(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"checkpoint={trained}", *ARGUMENTS, f"output={tmp_path}/out.json"]
    first = call(*given)
    capsys.readouterr()
    monkeypatch.setattr("eval.measure.identity.code_digest", lambda *_: "other")
    monkeypatch.setattr(contest, "timed_together", counting := Counting())
    second = call(*given)
    assert counting.n == 7 + 2 * 7
    out, err = capsys.readouterr()
    assert f"begins anew: {first[0]['samples_file']} is of other code\n" in out
    fingerprint = first[0]["samples_file"].split("samples-")[1].removesuffix(".jsonl")
    assert f"out.json was of another measurement; it is out.{fingerprint}.json now" in err
    assert json.loads((tmp_path / f"out.{fingerprint}.json").read_text()) == first
    assert json.loads((tmp_path / "out.json").read_text()) == second
    assert (tmp_path / f"out.{fingerprint}.csv").exists()


def test_other_settings_leave_the_default_result(trained: Path, tmp_path: Path) -> None:
    """From which eval.generate and the model card take E and d, as README's second benchmark must not change."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    row = {"mode": "self_speculative", "exit_layer": 3, "num_speculations": 7, "speedup": 1.5}
    default = json.dumps([row | {"samples_file": "benchmark.samples-0a0a0a0a.jsonl"}])
    (run / "benchmark.json").write_text(default)
    measured = call(f"checkpoint={run}", *ARGUMENTS)
    assert (run / "benchmark.json").read_text() == default
    (other,) = run.glob("benchmark_*.json")
    assert json.loads(other.read_text()) == measured
    assert choose_policy(GenerateConfig(checkpoint=str(run)), open_checkpoint(run)).policy == SelfSpeculative(3, 7)
    call(f"checkpoint={run}", *ARGUMENTS, "recommend=true")
    assert (run / "benchmark.json").read_text() == default
    best = max((r for r in measured if r["mode"] == "self_speculative"), key=lambda r: r["speedup"])
    asked = GenerateConfig(checkpoint=str(run), mode=Mode.self_speculative)
    assert choose_policy(asked, open_checkpoint(run)).policy == SelfSpeculative(
        best["exit_layer"], best["num_speculations"]
    )
