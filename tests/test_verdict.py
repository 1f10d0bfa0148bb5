"""The last line of a benchmark: the best setting, none, and what speaks against believing it."""

from dataclasses import replace
from typing import Any

import pytest
from conftest import tiny_model
from evaluation import FACTS, record, speculative

from eval.results import columns
from eval.results.bootstrap import Estimate
from eval.results.row import Row
from eval.results.rows import benchmark_rows
from eval.results.verdict import verdict
from eval.tasks.task import Sample, Task


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "screen_width", lambda: 1000)


def rows(speedup: float, accepted: float | None, exit_layer: int = 4, **output: Any) -> list[Row]:
    """Autoregressive decoding of 16 layers and one self-speculation."""
    samples = {"0": Sample(id="0", prompt="", tokens=[1])}
    records = [record(exit_layer=16), speculative(exit_layer=exit_layer, num_speculations=6)]
    autoregressive, drafting = benchmark_rows(records, Task(name="t"), samples, tiny_model(), FACTS)
    speed = replace(drafting.speed, speedup=Estimate(speedup, speedup, speedup), tokens_per_second=1013.0)
    drafts = replace(drafting.drafts, acceptance_rate=accepted)
    return [autoregressive, replace(drafting, speed=speed, drafts=drafts, output=replace(drafting.output, **output))]


def test_the_best_setting() -> None:
    assert verdict(rows(1.79, 0.51)) == (
        "best: exit_layer=4 num_speculations=6: 1.79 times the speed of autoregressive decoding (1,013 tokens/s),"
        " 51% of the drafts accepted, identical output"
    )
    assert "identical output but for 2 near-ties" in str(verdict(rows(1.79, 0.51, near_ties=2)))
    assert "OUTPUT THAT DIFFERS" in str(verdict(rows(1.79, 0.51, identical_output=False)))
    assert verdict(rows(1.79, 0.51)[:1]) is None


def test_no_setting_is_faster_and_no_exit_is_trained() -> None:
    first, second = str(verdict(rows(0.15, 0.03))).split("\n")
    assert first.startswith(
        "best: autoregressive decoding; no setting is faster. The best of them, exit_layer=4 num_speculations=6: 0.15"
        " times"
    )
    assert second.startswith(
        "this model shows no trained exits: of what the lower half of its layers drafts, at most 3%"
    )
    assert "trained exits" not in str(verdict(rows(0.8, 0.5))), "drafts that are good, but too dear"
    # The last layers agree with the last one in any model.
    assert "trained exits" not in str(verdict(rows(0.8, 0.1, exit_layer=15)))
    assert "trained exits" in str(verdict([*rows(0.15, 0.03), rows(0.9, 0.8, exit_layer=15)[1]]))


def test_texts_that_loop_are_told() -> None:
    first, second = str(verdict(rows(2.66, 0.99, distinct_4grams=0.04))).split("\n")
    assert first.startswith("best: exit_layer=4")
    assert second.startswith("the texts repeat themselves (only 4% of their 4-grams are different)")
    assert "\n" not in str(verdict(rows(2.66, 0.99, distinct_4grams=0.6)))
