"""train.acceptance: steps within a time, failures that are rows, a page at any moment, and going on afterwards."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_layout import ROOT

from conf.strict import ConfigError
from train.cost.benchmark_config import Device
from train.gpu import session as module
from train.gpu.config import AcceptanceConfig
from train.gpu.page import page
from train.gpu.session import Session, run
from train.gpu.steps import Sizes, Step, steps

WRITE = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('[1]')"


def step(name: str, folder: Path, code: str = WRITE, share: float = 1.0) -> Step:
    result = folder / f"{name}.json"
    return Step(name, [sys.executable, "-S", "-c", code, str(result)], share, result)


def config(tmp_path: Path, **options: Any) -> AcceptanceConfig:
    where: dict[str, Any] = {"output": str(tmp_path / "gpu.md"), "folder": str(tmp_path / "work"), "device": Device.cpu}
    return AcceptanceConfig(**where | options)


def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *chosen: Step, **options: Any) -> Session:
    monkeypatch.setattr(module, "steps", lambda *_: list(chosen))
    monkeypatch.setattr(module, "code_revision", lambda: "abc")
    return Session(config(tmp_path, **options))


def statuses(tmp_path: Path) -> dict[str, str]:
    record = json.loads((tmp_path / "gpu.json").read_text())
    return {name: found["status"] for name, found in record["steps"].items()}


def test_a_step_that_fails_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = step("fails", tmp_path, "print('error: no such GPU'); print('bye'); raise SystemExit(3)")
    silent = step("silent", tmp_path, "pass")
    once = session(tmp_path, monkeypatch, fails, silent, step("works", tmp_path))
    once.carry_out()
    assert once.failed == ["fails", "silent"]
    assert statuses(tmp_path) == {"fails": "failed", "silent": "failed", "works": "done"}
    text = (tmp_path / "gpu.md").read_text()
    assert "| fails | failed | 0 | `exit status 3: error: no such GPU` |" in text
    assert "| silent | failed | 0 | `exit status 0: it has said nothing` |" in text, (
        "without a result it has not worked"
    )
    assert "rehearsal on a CPU: none of these numbers says anything about a GPU" in text


def test_a_step_ends_with_its_time_and_its_children(tmp_path: Path) -> None:
    code = """
import pathlib, subprocess, sys
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
pathlib.Path(sys.argv[1] + ".pid").write_text(str(child.pid))
print("begun", flush=True)
child.wait()
"""
    begun = time.monotonic()
    found = run(step("long", tmp_path, code), 6.0, tmp_path)
    assert found["status"] == "too long"
    assert found["why"] == "ended after its 6 s; begun"
    assert 5 < time.monotonic() - begun < 30
    child = Path("/proc", (tmp_path / "long.json.pid").read_text(), "stat")
    deadline = time.monotonic() + 20
    while child.exists() and " Z " not in child.read_text():  # what is killed takes a moment to die
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_a_step_leaves_goes_to_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []

    def note(step: Step, limit: float, folder: Path) -> dict[str, Any]:
        limits.append(round(limit))
        return {"status": "done", "seconds": 0.0, "result": []}

    monkeypatch.setattr(module, "run", note)
    chosen = [step("a", tmp_path, share=3.0), step("b", tmp_path), step("c", tmp_path)]
    session(tmp_path, monkeypatch, *chosen, minutes=10).carry_out()
    assert limits == [360, 300, 600]


def test_without_time_nothing_is_begun(tmp_path: Path) -> None:
    assert run(step("late", tmp_path), 1.0, tmp_path)["status"] == "no time"
    assert not (tmp_path / "late.json").exists()


def test_a_later_start_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    noted = f"open({str(log)!r}, 'a').write('x'); {WRITE}"
    steady, shaky = step("steady", tmp_path, noted), step("shaky", tmp_path, "raise SystemExit(1)")
    session(tmp_path, monkeypatch, steady, shaky).carry_out()
    mended = step("shaky", tmp_path)
    session(tmp_path, monkeypatch, steady, mended).carry_out()
    assert statuses(tmp_path) == {"steady": "done", "shaky": "done"}
    assert log.read_text() == "x", "what was done is not done again"
    session(tmp_path, monkeypatch, steady, mended, fresh=True).carry_out()
    assert log.read_text() == "xx"
    session(tmp_path, monkeypatch, steady, mended, sizes=Sizes.full).carry_out()
    assert log.read_text() == "xxx", "other sizes are another measurement"


def test_numbers_of_a_gpu_are_not_overwritten_by_those_of_a_cpu(tmp_path: Path) -> None:
    (tmp_path / "gpu.json").write_text(json.dumps({"conditions": {"device": "cuda"}, "steps": {}}))
    with pytest.raises(ConfigError, match=r"output=.*gpu\.md: holds numbers of a GPU; choose another"):
        Session(config(tmp_path))


def test_a_gpu_that_is_not_here_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="device=cuda: no GPU can be used here"):
        Session(config(tmp_path, device=Device.cuda))


def test_the_steps_of_a_gpu(tmp_path: Path) -> None:
    found = steps("cuda", Sizes.full, tmp_path, "outputs/demo", 8)
    names = [one.name for one in found]
    assert names[:3] == ["probe", "parity", "pretrain"]
    assert {f"training_{r}_{c}" for r in ("selective", "full") for c in ("compiled", "eager")} < set(names)
    assert {"decoding_eager", "decoding_compiled", "decoding_checkpoint"} < set(names)
    words = {one.name: one.words for one in found}
    assert "scaling.ranks=[1,8]" in words["collectives"]
    assert json.loads(words["training_full_eager"][-1])["precision"] == "bf16"
    assert "decoding_checkpoint" not in [one.name for one in steps("cuda", Sizes.full, tmp_path, None, 1)]


@pytest.mark.slow
def test_the_command_on_a_cpu(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "train.acceptance", "device=cpu", f"output={tmp_path}/gpu.md"]
    words += [f"folder={tmp_path}/work", "minutes=60"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert done.returncode == 0, (done.stderr, record)
    text = (tmp_path / "gpu.md").read_text()
    for title in ("Parity", "Training", "A run of train.pretrain", "Decoding", "Collectives", "Steps"):
        assert f"## {title}\n" in text
    found = {name: one["result"] for name, one in record["steps"].items()}
    assert all(row["holds"] for row in found["parity"])
    arms = found["training_selective_compiled"]
    assert [row["arm"] for row in arms] == ["plain", "LD", "EE", "LD+EE"]
    assert arms[1]["flops_over_plain"] > 1 > arms[2]["flops_over_plain"]
    assert arms[0]["loss"] == pytest.approx(found["training_selective_eager"][0]["loss"], rel=1e-3)
    assert {row["mode"] for row in found["decoding_compiled"]} == {"autoregressive", "early_exit", "self_speculative"}
    assert [row["ranks"] for row in found["collectives"]] == [1, 2]
    assert list((tmp_path / "work").rglob("rank0_trace.json.gz"))
    assert not (tmp_path / "work" / "cpu-tiny" / "random_model").exists(), "it has done its service"
    begun = time.monotonic()
    again = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0
    assert page(json.loads((tmp_path / "gpu.json").read_text())) == text
    assert time.monotonic() - begun < 60, "nothing was measured again"


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_leave_the_table_and_no_process(sent: signal.Signals, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "train.acceptance", "device=cpu", f"output={tmp_path}/gpu.md"]
    process = subprocess.Popen(
        [*words, f"folder={tmp_path}/work", "minutes=60"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "gpu.md").exists():
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; the table has the steps that are done" in errors
    assert subprocess.run(["pgrep", "-f", str(tmp_path)]).returncode == 1, "the step under way has ended"
    assert "| probe | done |" in (tmp_path / "gpu.md").read_text()
