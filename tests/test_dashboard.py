"""The W&B workspace and report: what is sent for them with a login, and what is written without one."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from wandb_server import Server

from train.monitoring import metrics

ROOT = Path(__file__).parent.parent


def dashboard(run: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "train.dashboard", f"run_dir={run}", *words]
    alone = {"HOME": str(run), "WANDB_CONFIG_DIR": str(run), "NETRC": str(run / "netrc")}
    variables = {key: value for key, value in os.environ.items() if key != "WANDB_API_KEY"} | alone | environment
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=variables, timeout=300)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text("wandb:\n  project: layerskip\n  entity: null\n")
    return tmp_path


def values(tree: Any, key: str) -> list[Any]:
    """All values of a key anywhere in JSON."""
    if isinstance(tree, dict):
        return [v for k, v in tree.items() if k == key] + [v for x in tree.values() for v in values(x, key)]
    return [v for x in tree for v in values(x, key)] if isinstance(tree, list) else []


def check_spec(spec: Any) -> None:
    patterns = values(spec, "metricRegex")
    names = [f"{key}/exit_32" for key in ("val/ppl", "val/agreement", "val/acceptance", "train/loss")]
    names += ["train/exit_weight/exit_32", "train/dropout/layer_32", "train/layer_grad_norm/layer_32", "eval/x/y"]
    for name in names:
        assert sum(re.fullmatch(pattern, name) is not None for pattern in patterns) == 1, name
    tables = {v for v in values(spec, "value") if isinstance(v, str) and "table" in v}
    assert tables == {f"Custom Chart Tables/by_exit/{k}_over_depth_table" for k in ("ppl", "agreement", "acceptance")}
    assert ["by_exit/perplexity"] in values(spec, "mediaKeys")
    drawn = {name for shown in values(spec, "metrics") for name in shown}
    documented = set(re.findall(r"^(train/\w+)(?:$| )", metrics.__doc__ or "", re.M))
    assert documented - drawn == {"train/tokens"}, "every metric of training is in a panel"


def test_without_a_login_it_says_what_it_would_do(run: Path) -> None:
    done = dashboard(run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith(
        "no W&B login: `wandb login`, and the same command makes the workspace and the report"
    )
    assert done.stdout.endswith(f" in ENTITY/layerskip; their specifications are in {run}/dashboard.json\n")
    specs = json.loads((run / "dashboard.json").read_text())
    for spec in specs.values():
        check_spec(spec["spec"])


def test_with_a_login_it_sends_both(run: Path) -> None:
    with Server() as server:
        done = dashboard(run, "name=Depth", "group=seeds", **server.environment)
    assert done.returncode == 0, done.stderr
    workspace, report = server.views
    assert (workspace["type"], report["type"]) == ("project-view", "runs")
    for view in (workspace, report):
        assert (view["entityName"], view["projectName"], view["displayName"]) == ("tester", "layerskip", "Depth")
        check_spec(json.loads(view["spec"]))
        assert "seeds" in view["spec"]
    lines = done.stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["workspace", "report"]
    assert all(f"{server.url}/tester/layerskip" in line for line in lines)


def test_what_is_no_run(tmp_path: Path) -> None:
    done = dashboard(tmp_path / "none")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"error: run_dir={tmp_path}/none: no run folder (config.yaml: No such file")
    (tmp_path / "config.yaml").write_text("model: 3\n")
    assert f"{tmp_path}/config.yaml: no configuration of a run" in dashboard(tmp_path).stderr
