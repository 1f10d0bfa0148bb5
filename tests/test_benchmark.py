"""The benchmark's arithmetic against hand-made cases, and the command from a run folder to its files."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_model
from hydra import compose, initialize_config_module
from test_parity_hf import our_model

from conf.strict import ConfigError, register_schema
from eval.agreement import distinct_4grams, first_difference, is_near_tie
from eval.benchmark import benchmark
from eval.benchmark_config import BenchmarkConfig
from eval.engine.decoding import EarlyExit, FullDepth, Round, SelfSpeculative
from eval.grid import policies
from eval.ideal import PassTimes, early_exit_ideal, ideal_speedup, measured_cost_ideal
from eval.measure import Measured
from eval.rows import rows_of
from eval.speed import Timed
from models.inference import InferenceLlama

register_schema("benchmark", BenchmarkConfig)
CPU = torch.device("cpu")
SMALL = ["n_prompts=2", "prompt_tokens=8", "max_new_tokens=12", "num_speculations=[1,3]", "exit_layers=[1,2]"]
KEYS = {
    "mode",
    "exit_layer",
    "num_speculations",
    "tokens_per_second",
    "ms_per_token",
    "acceptance_rate",
    "tokens_per_round",
    "speedup",
    "ideal_speedup",
    "identical_output",
    "near_ties",
    "distinct_4grams",
    "hardware",
    "threads",
    "dtype",
    "commit",
}


def call(*overrides: str) -> list[dict[str, Any]]:
    with initialize_config_module("conf", version_base="1.3"):
        raw = compose("benchmark", list(overrides))
    return benchmark(raw)


def test_ideal_speedup() -> None:
    # All 4 drafts accepted, a free draft model: 5 tokens for the price of one.
    assert ideal_speedup(n_layers=10, exit_layer=0, d=4, n=4, head=0) == 5
    # 3 tokens for (2 * (2 + 1) + 9) / 9 of the price.
    assert ideal_speedup(n_layers=8, exit_layer=2, d=2, n=2, head=1) == pytest.approx(3 * 9 / 15)


def test_measured_cost_ideal() -> None:
    times = PassTimes(plain_prefill=2, plain_token=10, prefill=2, draft=3, last_draft=2, verify=9)
    # 6 tokens: a prefill and five passes; against two rounds of two drafts, and a plain token at the end.
    assert measured_cost_ideal(times, 6, [2, 2, 0]) == pytest.approx((2 + 50) / (2 + 2 * (6 + 2 + 9) + 10))
    assert early_exit_ideal(times, 6) == pytest.approx((2 + 50) / (2 + 15))


def test_distinct_4grams() -> None:
    assert distinct_4grams([[1, 2, 3, 4, 5, 6]]) == 1
    assert distinct_4grams([[7] * 8]) == pytest.approx(1 / 5)
    assert distinct_4grams([[1, 2, 3], [7] * 8]) == pytest.approx((1 + 1 / 5) / 2)


def test_first_difference() -> None:
    assert first_difference([1, 2], [1, 2]) is None
    assert first_difference([1, 2], [1, 3]) == 1
    assert first_difference([1, 2], [1, 2, 3]) == 2


def test_near_ties_are_told_from_real_differences() -> None:
    size = tiny_model()
    model = InferenceLlama(size, our_model(size).state_dict(), dtype=torch.float32, device=CPU)
    model.head *= 100  # its initial weights are small, and so are its logits
    context = [1, 2, 3]
    cache = model.new_cache(3)
    x = model.run(model.embed(torch.tensor([context])), cache, torch.arange(3), 3, range(size.n_layers))
    best, second = model.logits(x[0, -1]).topk(2).indices.tolist()
    assert not is_near_tie(model, context, best, second)
    model.head[second] = model.head[best]
    assert is_near_tie(model, context, best, second)
    worst = model.logits(x[0, -1]).argmin().item()
    assert not is_near_tie(model, context, best, int(worst)), "one of the two best must not hide a bad choice"


def test_policies() -> None:
    assert policies(32, [], [2]) == [
        FullDepth(),
        *map(EarlyExit, (4, 6, 8, 16)),
        *(SelfSpeculative(e, 2) for e in (4, 6, 8, 16)),
    ]
    assert policies(2, [], [2]) == [FullDepth(), EarlyExit(1), SelfSpeculative(1, 2)]
    assert policies(4, [2], [3, 1])[2:] == [SelfSpeculative(2, 1), SelfSpeculative(2, 3)]
    for bad in (0, 4):
        with pytest.raises(ConfigError, match=rf"exit_layers={bad}: must lie in 1\.\.3"):
            policies(4, [bad], [1])


def fake(plain: list[int], text: list[int], prompt: int = 0) -> tuple[InferenceLlama, Measured, SelfSpeculative]:
    """One prompt, plain decoding in 8 s, self-speculation in 4 s with known rounds."""
    size = tiny_model()
    model = InferenceLlama(size, our_model(size).state_dict(), dtype=torch.float32, device=CPU)
    policy = SelfSpeculative(2, 3)
    times = PassTimes(1, 1, 1, 0.2, 0.1, 1)
    return (
        model,
        Measured(
            prompt=[prompt],
            runs={
                FullDepth(): [Timed(plain, [Round([t], 0, 0) for t in plain], 8.0, 16.0)],
                policy: [Timed(text, [Round(text[:1], 0, 0), Round(text[1:4], 3, 2), Round(text[4:], 3, 3)], 4.0, 8.0)],
            },
            passes={FullDepth(): [times], policy: [times]},
        ),
        policy,
    )


def test_rows_of_known_rounds() -> None:
    text = [1, 2, 3, 4, 5, 6, 7, 8]
    model, measured, _ = fake(text, text)
    plain, fast = rows_of(model, measured, [[9, 9]], {"commit": "abc"})
    assert plain["mode"] == "autoregressive"
    assert plain["speedup"] == 1
    assert plain["ms_per_token"] == 1000
    assert plain["cpu_ms_per_token"] == 2000
    assert fast["speedup"] == 2
    assert fast["tokens_per_second"] == 2
    assert fast["acceptance_rate"] == pytest.approx(5 / 6)
    assert fast["tokens_per_round"] == 3.5
    assert fast["measured_cost_ideal"] == pytest.approx(8 / (1 + 2 * (0.6 + 0.1 + 1)))
    assert fast["share_of_measured_cost_ideal"] == pytest.approx(2 / fast["measured_cost_ideal"])
    assert fast["identical_output"] is True
    assert fast["near_ties"] == 0
    assert fast["commit"] == "abc"


def test_a_difference_that_is_no_near_tie_is_not_called_identical() -> None:
    text = [1, 2, 3, 4, 5, 6, 7, 8]
    model, measured, _ = fake(text, [1, 2, 3, 4, 5, 6, 7, 9])
    _, fast = rows_of(model, measured, [[9, 9]], {})
    assert fast["identical_output"] is False
    assert fast["near_ties"] == 0
    model, measured, _ = fake(text, text[:7])
    assert rows_of(model, measured, [[9, 9]], {})[1]["identical_output"] is False, "a text that ends early differs"


def test_a_difference_on_a_near_tie_is_counted() -> None:
    text = [1, 2, 3, 4, 5, 6, 7, 8]
    model, measured, _ = fake(text, [1, 2, 3, 4, 5, 6, 7, 9])
    model.head = torch.zeros_like(model.head)
    _, fast = rows_of(model, measured, [[9, 9]], {})
    assert fast["near_ties"] == 1
    assert fast["identical_output"] is True
    assert fast["identical_share"] == 0


def test_from_a_run_folder_to_its_files(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        rows = call(f"checkpoint={trained}", *SMALL, "machine.dtype=float64", "repeats=1")
        out = capsys.readouterr().out
        assert [(r["mode"], r["exit_layer"], r["num_speculations"]) for r in rows] == [
            ("autoregressive", 4, 0),
            ("early_exit", 1, 0),
            ("early_exit", 2, 0),
            *(("self_speculative", e, d) for e in (1, 2) for d in (1, 3)),
        ]
        assert json.loads((trained / "benchmark.json").read_text()) == rows
        with (trained / "benchmark.csv").open() as stream:
            assert [float(r["speedup"]) for r in csv.DictReader(stream)] == [r["speedup"] for r in rows]
        for row in rows:
            assert row.keys() >= KEYS
            if row["mode"] != "early_exit":
                assert row["identical_share"] == 1
            if row["mode"] == "self_speculative":
                assert 0 <= row["acceptance_rate"] <= 1
                assert row["tokens_per_round"] <= row["num_speculations"] + 1
        assert rows[0]["same_as_transformers"] == 1
        assert "best: exit_layer=" in out
        assert "transformers" in out
        assert str(trained / "benchmark.json") in out
    finally:
        (trained / "benchmark.json").unlink(missing_ok=True)
        (trained / "benchmark.csv").unlink(missing_ok=True)


BAD = {
    ("exit_layers=[4]",): r"exit_layers=4: must lie in 1\.\.3",
    ("num_speculations=[0]",): r"num_speculations=0: must be at least 1",
    ("num_speculations=[]",): r"num_speculations: give at least one",
    ("max_new_tokens=2",): r"num_speculations=3: must be below max_new_tokens=2",
    ("prompt_tokens=2000",): r"prompt_tokens \+ max_new_tokens=2012: must be at most the context's",
    ("n_prompts=100000",): r"n_prompts=100000: the text has [\d,]+ tokens, too few",
    ("output=x.txt",): r"output=x\.txt: must end in \.json",
    ("output=/proc/x.json",): r"output=/proc/x\.json: ",
}


@pytest.mark.parametrize(("arguments", "message"), BAD.items(), ids=[" ".join(a) for a in BAD])
def test_mistakes_are_told_before_anything_is_measured(trained: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call(f"checkpoint={trained}", *SMALL, *arguments)
