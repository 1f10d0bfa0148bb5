"""A benchmark's arithmetic against hand-made cases."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_model
from evaluation import FACTS, record, speculative
from test_parity_hf import our_model

from eval.engine.agreement import distinct_4grams, first_difference, near_tie_after
from eval.measure.records import Record, record_from_json
from eval.measure.timing import PassTimes
from eval.results import bootstrap
from eval.results.ideal import early_exit_ideal, measured_cost_ideal
from eval.results.row import Row
from eval.results.rows import benchmark_rows
from eval.results.table import benchmark_table, details
from eval.tasks.task import Sample, Task
from models.inference import InferenceLlama
from models.speculation import head_cost, ideal_speedup

CPU = torch.device("cpu")


def test_ideal_speedup() -> None:
    # All 4 drafts accepted, a free draft model: 5 tokens for the price of one.
    assert ideal_speedup(n_layers=10, exit_layer=0, d=4, n=4, head=0) == 5
    # 3 tokens for (2 * (2 + 1) + 9) / 9 of the price.
    assert ideal_speedup(n_layers=8, exit_layer=2, d=2, n=2, head=1) == pytest.approx(3 * 9 / 15)


def test_measured_cost_ideal() -> None:
    times = PassTimes(autoregressive_prefill=2, autoregressive_token=10, prefill=2, draft=3, last_draft=2, verify=9)
    # 6 tokens: a prefill and five passes; against two rounds of two drafts, and a plain token at the end.
    assert measured_cost_ideal(times, 6, [2, 2, 0]) == pytest.approx((2 + 50) / (2 + 2 * (6 + 2 + 9) + 10))
    assert early_exit_ideal(times, 6) == pytest.approx((2 + 50) / (2 + 15))


def test_the_share_of_bandwidth() -> None:
    """8 GB a token; a matrix-vector product reads them in 0.5 s, a token's pass takes 0.8 s."""
    records = [record(passes=[1, 0.8, 1, 0.8, 0, 0, 8e9, 0.5]), speculative()]
    plain, drafting = typed_rows(records)
    row = plain.as_json()
    assert (row["weight_mb_per_token"], row["bandwidth_gb_per_second"]) == (8000, 16)
    assert row["share_of_bandwidth"] == pytest.approx(0.625)
    assert "share_of_bandwidth" not in drafting.as_json()
    line = "autoregressive reads 8,000.0 MB of weights per token at 0.62 of the 16.0 GB/s at which"
    assert line in " ".join(benchmark_table([plain, drafting], []).split())


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
    model.head.weight *= 100  # its initial weights are small, and so are its logits
    context = [1, 2, 3]
    cache = model.new_cache(3)
    x = model.run(model.embed(torch.tensor([context])), cache, torch.arange(3), 3, range(size.n_layers))
    best, second = model.logits(x[0, -1]).topk(2).indices.tolist()
    assert not near_tie_after(model, context, best, second)
    model.head.weight[second] = model.head.weight[best]
    assert near_tie_after(model, context, best, second)
    worst = model.logits(x[0, -1]).argmin().item()
    assert not near_tie_after(model, context, best, int(worst)), "one of the two best must not hide a bad choice"


def rows(records: list[Record], groups: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """As a file has them."""
    return [row.as_json() for row in typed_rows(records, groups)]


def typed_rows(records: list[Record], groups: dict[str, str] | None = None) -> list[Row]:
    ids = dict.fromkeys(r.id for r in records)
    samples = {i: Sample(id=i, prompt="", tokens=[9, 9]) for i in ids}
    records = [replace(r, group=(groups or {}).get(r.id, "")) for r in records]
    return benchmark_rows(records, Task(name="t"), samples, tiny_model(), FACTS)


def test_rows_of_known_rounds() -> None:
    autoregressive, fast = rows([record(), speculative()])
    assert autoregressive["mode"] == "autoregressive"
    assert autoregressive["speedup"] == autoregressive["speedup_of_means"] == 1
    assert autoregressive["ms_per_token"] == autoregressive["mean_ms_per_token"] == 1000
    assert autoregressive["cpu_ms_per_token"] == 2000
    assert fast["speedup"] == fast["speedup_q25"] == fast["speedup_low"] == 2
    assert fast["tokens_per_second"] == 2
    assert fast["acceptance_rate"] == pytest.approx(5 / 6)
    assert fast["tokens_per_round"] == 3.5
    head = head_cost(tiny_model())
    assert fast["ideal_speedup"] == pytest.approx(3.5 * (4 + head) / (3 * (2 + head) + 4 + head))
    assert fast["measured_cost_ideal"] == pytest.approx(8 / (1 + 2 * (0.6 + 0.1 + 1)))
    assert fast["share_of_measured_cost_ideal"] == pytest.approx(2 / fast["measured_cost_ideal"])
    assert fast["identical_output"] is True
    assert fast["near_ties"] == 0
    assert (fast["commit"], fast["n_samples"], fast["repeats"]) == ("abc", 1, 1)


def test_speedups_of_texts_of_different_lengths() -> None:
    # 1 s and 0.5 s a token; 1 s and 1/3 s, of fewer tokens.
    records = [
        record(),
        record(mode="early_exit", exit_layer=2, tokens=[1, 2, 3, 4], seconds=2.0, identical=False),
        record(id="1", tokens=[1, 2], seconds=2.0),
        record(id="1", mode="early_exit", exit_layer=2, tokens=[1, 2, 3], seconds=1.0, identical=False),
    ]
    _, early = rows(records)
    assert early["speedup"] == pytest.approx(2.5)
    assert early["speedup_of_means"] == pytest.approx(2 / (0.5 + 1 / 3))
    assert (early["speedup_low"], early["speedup_high"]) == pytest.approx((2, 3))
    assert early["new_tokens"] == 3.5
    assert early["identical_output"] is False
    # At the exit a token takes 1 s, and so does the prefill: as long a plain text takes as long.
    assert early["measured_cost_ideal"] == pytest.approx(1)


def test_the_ideals_of_early_exit_and_the_head_s_cost() -> None:
    size = tiny_model()
    model = InferenceLlama(size, our_model(size).state_dict(), dtype=torch.float32, device=CPU)
    head, block = model.head.weight.numel(), sum(matrix.weight.numel() for matrix in model.blocks[0])
    assert head_cost(size) == head / block
    _, early = rows([record(), record(mode="early_exit", exit_layer=1, passes=[1, 1, 0.5, 0.25, 0, 0])])
    assert early["ideal_speedup"] == pytest.approx((4 + early["head"]) / (1 + early["head"]))
    assert early["measured_cost_ideal"] == pytest.approx(8 / (0.5 + 7 * 0.25))


def test_differences_and_near_ties() -> None:
    autoregressive = record()
    assert rows([autoregressive, speculative(identical=False)])[1]["identical_output"] is False
    tie = rows([autoregressive, speculative(identical=False, near_tie=True)])[1]
    assert (tie["identical_output"], tie["identical_share"], tie["near_ties"]) == (True, 0, 1)
    drawn = rows([record(identical=None), speculative(identical=None)])[1]
    assert drawn["identical_output"] is None


def test_metrics_by_group_and_repeats() -> None:
    def both(i: str, score: float, repeat: int) -> list[Record]:
        return [
            record(id=i, repeat=repeat, scores={"em": score}),
            speculative(id=i, repeat=repeat, scores={"em": 1 - score}),
        ]

    records = [
        r for repeat in (0, 1) for i, score in (("a", 1.0), ("b", 1.0), ("c", 0.0)) for r in both(i, score, repeat)
    ]
    autoregressive, fast = rows(records, {"a": "one", "b": "two", "c": "two"})
    assert (autoregressive["em"], fast["em"]) == pytest.approx((2 / 3, 1 / 3))
    assert (autoregressive["em_low"], autoregressive["em_high"]) == (0, 1)
    assert autoregressive["repeats"] == 2
    assert autoregressive["by_group"] == [
        {"group": "one", "n_samples": 1, "em": 1},
        {"group": "two", "n_samples": 2, "em": 0.5},
    ]


def test_by_prompt_length_and_position() -> None:
    long = {"id": "1", "prompt_tokens": 300}
    autoregressive, fast = rows([record(), speculative(), record(**long), speculative(**long, seconds=1.0)])
    assert [(p["prompt_tokens"], p["n_samples"], p["speedup"]) for p in fast["by_prompt_length"]] == [
        ("0-127", 1, 2),
        ("256-511", 1, 8),
    ]
    # 20 tokens: the prefill's, rounds of 10 and 9 of which the first passes position 16.
    n = 30
    own = speculative(
        tokens=list(range(n)),
        emitted=[1, 10, 10, 9],
        drafted=[0, 9, 9, 8],
        accepted=[0, 9, 9, 2],
        round_seconds=[5.0, 2.0, 4.0, 9.0],
    )
    found = typed_rows([record(tokens=list(range(n))), own])
    autoregressive, fast = (row.as_json() for row in found)
    first, second = fast["by_position"]
    assert (first["position"], second["position"]) == ("0-15", "16-63")
    # Positions 1-10 are the first round's, 11-20 the second's, 21-29 the third's.
    assert (first["n_tokens"], second["n_tokens"]) == (15, 14)
    assert first["ms_per_token"] == pytest.approx(1e3 * (2 + 4 * 5 / 10) / 15)
    assert second["ms_per_token"] == pytest.approx(1e3 * (4 * 5 / 10 + 9) / 14)
    assert first["acceptance_rate"] == 1
    assert second["acceptance_rate"] == pytest.approx((4 + 2) / (4 + 8))
    assert first["speedup"] == pytest.approx(15 / 4)
    assert [p["n_tokens"] for p in autoregressive["by_position"]] == [15, 14]
    text = details(found, [])
    assert "16-63" in text
    assert "0-127" in text


def test_the_table_with_intervals() -> None:
    found = typed_rows([record(scores={"em": 1.0}), speculative(scores={"em": 1.0}, exit_states="recompute")])
    text = benchmark_table(found, ["em"])
    assert "1.000 [1.000, 1.000]" in text
    assert "2.00 [2.00, 2.00]" in text
    assert "recompute" in text
    assert "[ ]: 95 %" in text
    assert "[ ]" not in benchmark_table(found, [])


def test_a_record_survives_its_line() -> None:
    for r in (record(), speculative(scores={"a": 0.5}, peak_memory_mb=1.5)):
        assert record_from_json(r.as_json()) == r
    assert record().as_json()["new_tokens"] == 8
    with pytest.raises(TypeError):
        record_from_json({"task": "t"})


def test_bootstrap_of_a_mean_is_the_closed_form() -> None:
    # A share p of n: the mean of a draw is binomial, with standard deviation sqrt(p (1 - p) / n).
    n, p = 400, 0.3
    values = [1.0] * int(n * p) + [0.0] * int(n * (1 - p))
    found = bootstrap.estimate(values, bootstrap.mean, draws=4000)
    half = 1.96 * (p * (1 - p) / n) ** 0.5
    assert found.value == pytest.approx(p)
    assert found.low == pytest.approx(p - half, abs=0.1 * half)
    assert found.high == pytest.approx(p + half, abs=0.1 * half)
    assert bootstrap.estimate(values, bootstrap.mean) == bootstrap.estimate(values, bootstrap.mean), "a fixed seed"
    assert bootstrap.estimate([2.0], bootstrap.median) == (2, 2, 2)


def test_bootstrap_covers_what_it_should() -> None:
    rng, inside = np.random.default_rng(0), 0
    for seed in range(200):
        pairs = np.stack([rng.normal(2, 0.5, 60), rng.normal(1, 0.2, 60)], axis=1)
        found = bootstrap.estimate(pairs, bootstrap.ratio_of_means, draws=200, seed=seed)
        inside += found.low <= 2 <= found.high
    assert 0.88 < inside / 200 < 0.99
