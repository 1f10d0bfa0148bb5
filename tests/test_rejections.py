"""The breakdowns on hand-made drafts, and the command: its files, the benchmark's acceptance, resuming, mistakes."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from evaluation import write_jsonl
from hydra import compose, initialize_config_module

from conf.strict import ConfigError, register_schema
from data.config import DataError
from eval.benchmark import benchmark
from eval.drafts import measurement
from eval.drafts.breakdowns import breakdowns, confusion, pairs, totals
from eval.drafts.config import RejectionsConfig
from eval.drafts.findings import Confusion, TokenPair
from eval.drafts.judged import RoundCounts
from eval.drafts.report import TABLES
from eval.drafts.sample import Draft, DraftedSample, drafted_sample
from eval.measure.config import BenchmarkConfig
from eval.rejections import rejections

register_schema("rejections", RejectionsConfig)
register_schema("benchmark", BenchmarkConfig)


def draft(position: int, **changes: Any) -> Draft:
    fields: dict[str, Any] = {
        "at": position,
        "position": position,
        "draft": 1,
        "full": 1,
        "lost": 0,
        "draft_class": "identifier",
        "piece": "first",
        "full_class": "identifier",
        "rank": 1,
        "rank_of_full": 1,
        "full_probability": 0.6,
        "confidence": 0.5,
        "entropy": 1.5,
    }
    return Draft(**fields | changes)


def rejected(position: int, **changes: Any) -> Draft:
    return draft(position, **{"full": 2, "rank": 2, "rank_of_full": 3, "full_probability": 0.05} | changes)


NUMBER = {"draft_class": "number", "piece": "later", "confidence": 0.999, "entropy": 0.0}
SAMPLES = [
    DraftedSample(
        id="a",
        group="",
        prompt_tokens=3,
        tokens=[1] * 20,
        rounds=[RoundCounts(2, 0, 0, 0), RoundCounts(1, 1, 1, 0), RoundCounts(0, 1, 2, 0)],
        drafts=[
            draft(1),
            draft(2, **NUMBER),
            draft(1, at=15, **NUMBER),
            rejected(2, at=16, lost=1, draft_class="newline", piece=None, full_class="special"),
            rejected(1, at=99, lost=2, rank=101, confidence=0.1, entropy=8.0),
        ],
    ),
    DraftedSample(
        id="b",
        group="",
        prompt_tokens=3,
        tokens=[1] * 4,
        rounds=[RoundCounts(1, 0, 0, 2)],
        drafts=[draft(1, full_probability=1.0)],
        near_ties=1,
    ),
    DraftedSample(id="c", group="", prompt_tokens=3, tokens=[1], rounds=[], drafts=[]),
]


def table(name: str) -> dict[str, tuple[int, int, int]]:
    """(judged, accepted, lost) by value."""
    return {r.value: (r.judged, r.accepted, r.lost) for r in breakdowns(SAMPLES).by_name()[name]}


def test_each_breakdown() -> None:
    assert table("by_class") == {"identifier": (3, 2, 2), "number": (2, 2, 0), "newline": (1, 0, 1)}
    assert table("by_piece") == {"first": (3, 2, 2), "later": (2, 2, 0), "no word": (1, 0, 1)}
    assert list(table("by_class_and_piece")) == ["identifier, first", "number, later", "newline, no word"]
    assert table("by_class_of_full") == {"identifier": (5, 4, 2), "special": (1, 0, 1)}
    assert table("by_position") == {"1": (4, 3, 2), "2": (2, 1, 1)}
    assert table("by_place") == {"0-15": (4, 4, 0), "16-63": (1, 0, 1), "64-255": (1, 0, 2)}
    assert table("by_rank") == {"1": (4, 4, 0), "2": (1, 0, 1), "101+": (1, 0, 2)}
    assert table("by_rank_of_full") == {"1": (4, 4, 0), "3": (2, 0, 3)}
    assert table("by_full_probability") == {"0.01-0.1": (2, 0, 3), "0.6-0.7": (3, 3, 0), "0.99-1": (1, 1, 0)}
    assert table("by_confidence") == {"0.1-0.2": (1, 0, 2), "0.5-0.6": (3, 2, 1), "0.99-1": (2, 2, 0)}
    assert table("by_entropy") == {"0-0.25": (2, 2, 0), "1-2": (3, 2, 1), "8+": (1, 0, 2)}
    for rows in breakdowns(SAMPLES).by_name().values():
        assert sum(r.judged for r in rows) == 6
        assert sum(r.rejected for r in rows) == 2
        assert sum(r.lost for r in rows) == 3
        assert sum(r.share_of_rejections or 0 for r in rows) == pytest.approx(1)
        assert sum(r.share_of_judged for r in rows) == pytest.approx(1)


def test_acceptance_with_its_interval() -> None:
    row = next(r for r in breakdowns(SAMPLES).by_class if r.value == "identifier")
    # Of the two samples that have any: 1 of 2 and 1 of 1.
    assert (row.acceptance.low, row.acceptance.value, row.acceptance.high) == (0.5, 2 / 3, 1.0)
    assert row.n_samples == 2
    positions = breakdowns(SAMPLES).by_position
    # Rounds drafted 2, 3, 3 and 3.
    assert [(r.drafted, r.accepted_of_drafted) for r in positions] == [(4, 3 / 4), (4, 1 / 4)]


def test_totals() -> None:
    found = totals(SAMPLES)
    assert (found.rounds, found.drafted, found.near_ties, found.unexplained) == (4, 11, 1, 0)
    assert (found.accepted, found.rejected, found.after_rejection, found.after_end) == (4, 2, 3, 2)
    assert found.acceptance_rate is not None
    assert found.acceptance is not None
    assert (found.acceptance_rate.value, found.acceptance.value) == (4 / 11, 4 / 6)
    nothing = totals(SAMPLES[2:])
    assert (nothing.drafted, nothing.acceptance, nothing.acceptance_rate) == (0, None, None)
    assert not any(breakdowns(SAMPLES[2:]).by_name().values())


def test_confusion_and_pairs() -> None:
    assert confusion(SAMPLES) == [
        Confusion(draft_class="identifier", full_class="identifier", rejected=1, n_samples=1),
        Confusion(draft_class="newline", full_class="special", rejected=1, n_samples=1),
    ]
    assert pairs(SAMPLES, str) == [TokenPair(draft="1", full="2", rejected=2, n_samples=1)]


def call(name: str, action: Any, *overrides: str) -> Any:
    with initialize_config_module("conf", version_base="1.3"):
        raw = compose(name, list(overrides))
    return action(raw)


@pytest.fixture(scope="module")
def own_prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = ["import os\n", "def main(", "class A:\n    def ", "# ", "return self."]
    rows = [{"prompt": t, "id": str(i)} for i, t in enumerate(texts)]
    return write_jsonl(tmp_path_factory.mktemp("prompts") / "p.jsonl", rows)


def arguments(trained: Path, prompts: Path, output: Path) -> list[str]:
    task = ["task=prompts", f"task.source={prompts}", "task.max_new_tokens=24", "task.ignore_eos=true"]
    return [f"checkpoint={trained}", *task, "machine.dtype=float64", f"output={output}"]


def test_files_and_the_benchmark_s_acceptance(
    trained: Path, own_prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.json"
    again = arguments(trained, own_prompts, output)
    call("rejections", rejections, *again, "exit_layer=2", "num_speculations=3", "detail=true")
    out = capsys.readouterr().out
    found = json.loads(output.read_text())
    assert (found["exit_layer"], found["num_speculations"], found["n_samples"], found["seed"]) == (2, 3, 5, 42)
    assert found.keys() >= {"hardware", "threads", "dtype", "commit", "torch", "language", *TABLES}
    assert found["unexplained"] == 0
    parts = ("accepted", "rejected", "after_rejection", "after_end")
    assert sum(found[k] for k in parts) == found["drafted"] > found["accepted"] > 0
    measured = call(
        "benchmark",
        benchmark,
        *arguments(trained, own_prompts, tmp_path / "benchmark.json"),
        *("exit_layers=[2]", "num_speculations=[3]", "modes=[self_speculative]"),
    )
    assert found["acceptance_rate"] == measured[-1].drafts.acceptance_rate
    with output.with_suffix(".csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [r["value"] for r in rows if r["table"] == "by_class"] == [r["value"] for r in found["by_class"]]
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "never judged" in out
    assert all(title in out for title in TABLES.values())
    lines = (tmp_path / found["samples_file"]).read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines[1:]] == list("01234")
    assert "ERROR" not in out


def test_a_killed_run_goes_on(
    trained: Path,
    own_prompts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    again = arguments(trained, own_prompts, tmp_path / "out.json")
    decoded: list[str] = []

    def counting(*args: Any, **kwargs: Any) -> DraftedSample:
        if len(decoded) == 2:
            decoded.append("killed")
            raise KeyboardInterrupt
        decoded.append(kwargs["sample_id"])
        return drafted_sample(*args, **kwargs)

    monkeypatch.setattr(measurement, "drafted_sample", counting)
    with pytest.raises(KeyboardInterrupt):
        call("rejections", rejections, *again)
    (log,) = tmp_path.glob("*.jsonl")
    with log.open("ab") as stream:
        stream.write(b'{"id": "2", "dra')
    monkeypatch.setattr("eval.machine.code_revision", lambda: "another commit")
    call("rejections", rejections, *again)
    assert decoded == ["0", "1", "killed", "2", "3", "4"]
    first = json.loads((tmp_path / "out.json").read_text())
    call("rejections", rejections, *again)
    assert "has all samples from an earlier start; fresh=true" in capsys.readouterr().out
    assert decoded[6:] == []
    content = log.read_bytes()
    call("rejections", rejections, *again, "fresh=true")
    assert decoded[6:] == list("01234")
    assert (log.read_bytes(), json.loads((tmp_path / "out.json").read_text())) == (content, first)
    log.write_bytes(content + b"{}\n")
    with pytest.raises(DataError, match=r":7: not a record; fresh=true"):
        call("rejections", rejections, *again)
    call("rejections", rejections, *again, "num_speculations=1")
    assert len(list(tmp_path.glob("*.jsonl"))) == 2, "other settings, another file"


BAD = {
    "exit_layer=4": r"exit_layer=4: must lie in 1\.\.3",
    "exit_layer=0": r"exit_layer=0: must lie in 1\.\.3",
    "num_speculations=0": r"num_speculations=0: must be at least 1",
    "num_speculations=24": r"num_speculations=24: must be below task.max_new_tokens=24",
    "task.max_new_tokens=2": r"task.max_new_tokens=2: must be at least 3",
    "output=x.txt": r"output=x\.txt: must end in \.json",
    "output=/proc/x.json": r"output=/proc/x\.json: ",
}


@pytest.mark.parametrize(("override", "message"), BAD.items(), ids=list(BAD))
def test_mistakes_are_told(trained: Path, own_prompts: Path, tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call("rejections", rejections, *arguments(trained, own_prompts, tmp_path / "out.json"), override)
