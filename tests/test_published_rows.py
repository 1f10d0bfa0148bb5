"""What benchmarks and sweeps write and print, byte for byte as before: users and other programs read it.

WRITE_GOLDEN=1 python -m pytest tests/test_published_rows.py writes the files anew, after a change that is meant.
"""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_model
from evaluation import record, speculative
from test_rejections import SAMPLES

from conf.provenance import Provenance
from eval.drafts.breakdowns import breakdowns, confusion, pairs, totals
from eval.drafts.findings import Rejections, RejectionsSetting
from eval.drafts.plot import plot
from eval.drafts.report import report, save_rejections
from eval.drafts.sample import DraftedSample
from eval.measure.facts import Facts
from eval.measure.records import Record
from eval.results import columns
from eval.results.rows import benchmark_rows
from eval.results.sweep_findings import with_findings
from eval.results.sweep_table import sweep_table
from eval.results.table import benchmark_table, details, save_rows
from eval.results.verdict import verdict
from eval.tasks.task import Sample, Selection, Task

GOLDEN = Path(__file__).parent / "golden"
FACTS = Facts(
    checkpoint="outputs/demo",
    selection=Selection(source="held out"),
    provenance=Provenance(hardware="h", threads="auto", dtype="float32", torch="2", commit="a" * 40),
)
PLAIN_BASELINE: dict[str, Any] = {"mode": "baseline", "exit_layer": 4, "identical": None, "passes": None}
TRANSFORMERS: dict[str, Any] = {"mode": "transformers", "exit_layer": 4, "passes": None}


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "screen_width", lambda: 1000)


def own_text() -> tuple[list[Record], Facts]:
    """A task without scores: transformers, early exit, a near-tie, threads that have changed."""
    records = []
    for i, slower in (("0", 1.0), ("1", 1.25)):
        early = {"mode": "early_exit", "exit_layer": 2, "identical": False, "tokens": [1, 2, 3, 4, 9, 9, 9, 9]}
        records += [
            record(id=i, threads=1, seconds=8 * slower),
            record(id=i, threads=1, seconds=3 * slower, passes=[1, 1, 1, 0.5, 0, 0], **early),
            speculative(id=i, threads=2),
            speculative(id=i, threads=1, num_speculations=4, seconds=6.0, identical=i == "0", near_tie=i == "1"),
            record(id=i, seconds=24.0, **TRANSFORMERS),
        ]
    return records, replace(FACTS, transformers="5.0", samples_file="benchmark.samples-0.jsonl")


def scored() -> tuple[list[Record], Facts]:
    """A task with scores and groups, drawn twice, on a GPU, beside a baseline; both kinds of verification."""
    records = []
    for repeat in (0, 1):
        for i, score in (("a", 1.0), ("b", 0.5), ("c", 0.0)):
            common: dict[str, Any] = {"id": i, "repeat": repeat, "group": "one" if i == "a" else "two"}
            drawn = common | {"identical": None, "peak_memory_mb": 12.5, "prompt_tokens": 200}
            records += [
                record(**drawn, scores={"em": score}, seconds=8.0 + repeat),
                speculative(**drawn, scores={"em": score / 2}),
                speculative(**drawn, scores={"em": score / 2}, exit_states="recompute", seconds=7.0),
                record(**common | PLAIN_BASELINE, scores={"em": score}, seconds=7.5),
            ]
    return records, replace(FACTS, baseline="outputs/plain", chat=True, samples_file="x.samples-0.jsonl")


def rows(records: list[Record], facts: Facts) -> Any:
    samples = {i: Sample(id=i, prompt="", tokens=[9, 9]) for i in dict.fromkeys(r.id for r in records)}
    return benchmark_rows(records, Task(name="t"), samples, tiny_model(), facts)


def agrees(path: Path, name: str) -> None:
    golden = GOLDEN / name
    if os.environ.get("WRITE_GOLDEN"):
        golden.write_bytes(path.read_bytes())
    assert path.read_bytes() == golden.read_bytes(), name


@pytest.mark.parametrize(("name", "measured", "metrics"), [("own_text", own_text, []), ("scored", scored, ["em"])])
def test_a_benchmark(name: str, measured: Any, metrics: list[str], tmp_path: Path) -> None:
    found = rows(*measured())
    file, text = tmp_path / "rows.json", tmp_path / "text"
    save_rows([row.as_json() for row in found], file)
    text.write_text("\n\n".join([benchmark_table(found, metrics), details(found, metrics), str(verdict(found))]) + "\n")
    agrees(file, f"benchmark_{name}.json")
    agrees(file.with_suffix(".csv"), f"benchmark_{name}.csv")
    agrees(text, f"benchmark_{name}.txt")


@pytest.mark.parametrize(("name", "measured"), [("own_text", own_text), ("scored", scored)])
def test_a_sweep(name: str, measured: Any, tmp_path: Path) -> None:
    records, facts = measured()
    # A sweep has early exit at each E and no other checkpoint.
    early = [r for r in records if r.mode != "baseline" and r.exit_states != "recompute"]
    if name == "scored":
        early += [
            record(
                **PLAIN_BASELINE
                | {
                    "mode": "early_exit",
                    "exit_layer": 2,
                    "id": r.id,
                    "repeat": r.repeat,
                    "seconds": 2.0,
                    "scores": {"em": 0.25},
                    "passes": [1, 1, 1, 0.5, 0, 0],
                }
            )
            for r in early
            if r.mode == "autoregressive"
        ]
    found, quality = with_findings(rows(early, facts), early, "em" if name == "scored" else None)
    file, text = tmp_path / "rows.json", tmp_path / "text"
    save_rows([row.as_json() for row in found], file)
    text.write_text(f"{sweep_table(found, quality)}\n\n{verdict(found)}\n")
    agrees(file, f"sweep_{name}.json")
    agrees(text, f"sweep_{name}.txt")


@pytest.mark.parametrize(("name", "samples"), [("rejections", SAMPLES), ("rejections_none", SAMPLES[2:])])
def test_rejections(name: str, samples: list[DraftedSample], tmp_path: Path) -> None:
    found = Rejections(
        setting=RejectionsSetting(
            checkpoint="outputs/demo",
            exit_layer=2,
            n_layers=8,
            num_speculations=3,
            language="code",
            task="t",
            n_samples=3,
            seed=42,
            temperature=0.0,
        ),
        selection=FACTS.selection,
        provenance=FACTS.provenance,
        new_tokens=sum(len(s.tokens) for s in samples) / len(samples),
        totals=totals(samples),
        breakdowns=breakdowns(samples),
        confusion=confusion(samples),
        pairs=pairs(samples, str),
        samples_file="x.samples-0.jsonl",
    )
    file, text = tmp_path / "rejections.json", tmp_path / "text"
    save_rejections(found, file)
    plot(found, tmp_path / f"{name}.png")
    text.write_text("\n\n".join(report(found, detail=detail) for detail in (True, False)) + "\n")
    agrees(file, f"{name}.json")
    agrees(file.with_suffix(".csv"), f"{name}.csv")
    agrees(text, f"{name}.txt")


def test_the_json_is_json() -> None:
    for file in GOLDEN.glob("*.json"):
        json.loads(file.read_text())
