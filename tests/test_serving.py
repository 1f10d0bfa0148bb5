"""eval.serving.check: other engines on exports of a checkpoint, each in a program of its own, held against ours."""

import json
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from conf.provenance import ROOT
from conf.strict import ConfigError, convert, register_schema
from eval.exactness.divergence import UnexplainedError
from eval.serving import others
from eval.serving.config import Server, ServingConfig
from eval.serving.served import serve
from eval.serving.table import failures, served_rows, served_table
from models.storage.errors import FormatError

register_schema("serving", ServingConfig)
PYTHON = ROOT / ".venv-serve" / "bin" / "python"
SMALL = ["task.n_samples=6", "task.prompt_tokens=8", "task.max_new_tokens=24", "exit_layer=1", "num_speculations=2"]
SMALL += ["machine.threads=1"]


def config(checkpoint: Path, *overrides: str) -> ServingConfig:
    with initialize_config_module("conf", version_base="1.3"):
        return convert(compose("serving", [f"checkpoint={checkpoint}", *SMALL, *overrides]), ServingConfig)


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our engine in the place of the others, which are not installed here."""
    environment = others._environment

    def with_tests(python: str, job: others.Job) -> dict[str, str]:
        return environment(python, job) | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}

    monkeypatch.setattr(others, "_environment", with_tests)
    monkeypatch.setattr(others, "PACKAGES", dict.fromkeys(Server, "torch"))
    monkeypatch.setattr(others, "PROGRAMS", {Server.llama_cpp: "serving_worker", Server.vllm: "wrong_worker"})


@pytest.mark.usefixtures("ours")
def test_texts_and_drafts_are_as_predicted(trained: Path, tmp_path: Path) -> None:
    """By GGUF files of all layers and of the first: what is exported computes what we compute."""
    found = serve(config(trained, "servers=[llama_cpp]", f"python={sys.executable}", f"output={tmp_path}/served.json"))
    rows = served_rows(found)
    assert [(r.system, r.mode) for r in rows] == [(s, m) for s in ("ours", "llama_cpp") for m in ("plain", "drafted")]
    assert not failures(rows)
    assert all(r.identical_share == 1 for r in rows)
    ours, theirs = rows[1], rows[3]
    assert ours.drafted > ours.accepted > 0
    assert (theirs.drafted, theirs.accepted) == (ours.drafted, ours.accepted)
    assert theirs.acceptance_as_predicted
    assert theirs.predicted_acceptance_rate == ours.acceptance_rate
    assert (rows[2].version, rows[2].exit_layer, rows[2].acceptance_rate) == ("worker 1", 0, None)
    table = served_table(rows, found.facts)
    assert "llama_cpp  drafted  1  2" in table
    assert max(map(len, table.splitlines())) <= 120


@pytest.mark.usefixtures("ours")
def test_what_differs_is_named(trained: Path, tmp_path: Path) -> None:
    from eval.serving import check

    output = tmp_path / "served.json"
    with initialize_config_module("conf", version_base="1.3"):
        asked = [f"checkpoint={trained}", *SMALL, "servers=[vllm]", f"python={sys.executable}", f"output={output}"]
        raw = compose("serving", asked)
    with pytest.raises(UnexplainedError) as error:
        check.check(raw)
    assert "vllm plain writes other texts; vllm drafted writes other texts; vllm accepts" in str(error.value)
    assert "other than predicted" in str(error.value)
    rows = json.loads(output.read_text())
    assert [row["identical_output"] for row in rows] == [True, True, False, False]
    assert rows[0].keys() >= {"hardware", "threads", "dtype", "commit", "tokens_per_second", "acceptance_rate"}
    assert (tmp_path / "served.csv").exists()


def test_an_engine_that_is_not_there(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"python=/nowhere/python: No such file.*`make serve-check` sets up"):
        serve(config(trained, "python=/nowhere/python"))
    with pytest.raises(ConfigError, match=r"servers: vllm is not installed for .*`make serve-check` sets up"):
        serve(config(trained, f"python={sys.executable}"))
    with pytest.raises(ConfigError, match=r"python=/bin/false: is no Python"):
        serve(config(trained, "python=/bin/false"))


@pytest.mark.usefixtures("ours")
def test_an_engine_that_fails(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(others, "PROGRAMS", {Server.vllm: "no_such_worker"})
    with pytest.raises(ConfigError, match=r"servers: vllm has ended with status 1: .*No module named no_such_worker"):
        serve(config(trained, "servers=[vllm]", f"python={sys.executable}"))


@pytest.mark.parametrize(
    "bad",
    ["machine.dtype=float64", "machine.device=cuda", "num_speculations=0", "rounds=0", "output=a.csv"],
)
def test_bad_keys(trained: Path, bad: str) -> None:
    with pytest.raises(ConfigError, match=bad.partition("=")[0]):
        config(trained, bad)


def test_texts_that_do_not_fit(trained: Path) -> None:
    with pytest.raises(FormatError, match=r"exit_layer=4: must lie in 1\.\.3 of"):
        serve(config(trained, "servers=[]", "exit_layer=4"))


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="`make serve-check` sets up the engines")
def test_vllm_and_llama_cpp(trained: Path, tmp_path: Path) -> None:
    found = serve(config(trained, f"python={PYTHON}", f"output={tmp_path}/served.json"))
    assert not failures(served_rows(found))
