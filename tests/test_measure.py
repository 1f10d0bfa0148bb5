"""How samples are measured: turns, what a difference is worth, and single passes."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import tiny_model
from evaluation import Bytes
from test_parity_hf import our_model

from eval.engine.decoding import Engine
from eval.engine.policy import Autoregressive, EarlyExit, Policy, SelfSpeculative, Steady
from eval.engine.rows import Round
from eval.engine.sampling_options import SamplingOptions
from eval.measure import contest as measure
from eval.measure.contest import Contest, turns
from eval.measure.records import Record
from eval.measure.timing import Timed, pass_times
from eval.setting import BASELINE, TRANSFORMERS, Setting
from eval.tasks.humaneval import HumanEval
from eval.tasks.task import Sample, Task
from models.inference import InferenceLlama

FAST = SelfSpeculative(2, 3)


def contest(policies: list[Policy], task: Task | None = None) -> Contest:
    size = tiny_model(vocab_size=260)
    model = InferenceLlama(size, our_model(size).state_dict(), dtype=torch.float32, device=torch.device("cpu"))
    model.head.weight *= 100  # its initial weights are small, and so are its logits
    return Contest(task=task or Task(name="t"), tokenizer=Bytes(), engine=Engine(model), policies=policies)


def timed(tokens: list[int]) -> Timed:
    return Timed(tokens, [Round([t], 0, 0) for t in tokens], 1.0, 1.0, [0.1] * len(tokens))


def records(c: Contest, texts: dict[Setting, list[int]]) -> dict[str, Record]:
    sample = Sample(id="0", prompt="ab", tokens=[256, 97, 98])
    found = measure._records(c, sample, 0, {s: (timed(tokens), None) for s, tokens in texts.items()})
    return {r.mode: r for r in found}


def test_what_differs_and_what_is_a_near_tie() -> None:
    c = contest([Autoregressive(), FAST, EarlyExit(1)])
    autoregressive, fast, early = (Setting.of(p, 4) for p in c.policies)
    same = records(c, {autoregressive: [1, 2, 3], fast: [1, 2, 3], Setting(TRANSFORMERS, 4): [1, 2, 3]})
    assert [(r.identical, r.near_tie) for r in same.values()] == [(True, False)] * 3
    other = {autoregressive: [1, 2, 3], fast: [1, 2, 4], early: [1, 2, 4], Setting(BASELINE, 4): [1, 2, 3]}
    found = records(c, other)
    assert (found["self_speculative"].identical, found["self_speculative"].near_tie) == (False, False)
    assert found["baseline"].identical is None, "another model"
    c.engine.model.head.weight.zero_()
    found = records(c, other)
    assert (found["self_speculative"].identical, found["self_speculative"].near_tie) == (False, True)
    assert (found["early_exit"].identical, found["early_exit"].near_tie) == (False, False), "nothing else is expected"
    shorter = records(c, {autoregressive: [1, 2, 3], fast: [1, 2]})["self_speculative"]
    assert (shorter.identical, shorter.near_tie) == (False, False), "a text that ends early differs"


def test_drawn_tokens_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    task = HumanEval(sampling=SamplingOptions(temperature=0.8))
    monkeypatch.setattr(HumanEval, "score", lambda *_: {"x": 1.0})
    c = contest([Autoregressive(), FAST], task)
    found = records(c, {Setting.of(p, 4): [1, 2, 3] for p in c.policies})
    assert {r.identical for r in found.values()} == {None}


def test_turns_are_what_is_missing_with_passes_evenly_spaced() -> None:
    samples = [Sample(id=str(i), prompt="", tokens=[1]) for i in range(8)]
    ledger: Any = SimpleNamespace(done={("0", 0), ("5", 1)})
    found = turns(samples, ledger, repeats=2, pass_samples=4)
    everything = [(r, i) for r in (0, 1) for i in range(8)]
    assert [(t.repeat, t.which) for t in found] == [x for x in everything if x not in ((0, 0), (1, 5))]
    assert {t.which for t in found if t.times_passes} == {0, 2, 4, 6}
    assert [t.number for t in found][:2] == [1, 2], "the order of the settings does not depend on a kill"


def test_every_setting_comes_first_and_in_another_order() -> None:
    settings = [Setting("m", i) for i in range(5)]
    orders = [measure._turned(settings, n) for n in range(10)]
    assert {order[0] for order in orders} == set(settings)
    assert all(sorted(order) == settings for order in orders)


def test_a_batch_is_measured_as_its_texts_one_by_one() -> None:
    policies: list[Policy] = [Autoregressive(), FAST]
    samples = [Sample(id=str(i), prompt="", tokens=[256, *range(97, 98 + i)]) for i in range(5)]
    found = []
    for batch_size in (1, 2):
        c = contest(policies, Task(name="t", max_new_tokens=9))
        c.engine = Engine(c.engine.model, None, batch_size)
        ledger: Any = SimpleNamespace(done=set(), entries=[])
        ledger.add = ledger.entries.extend
        measure.decode_all(c, samples, [measure.Turn(i, 0, i, i == 0) for i in range(5)], ledger)
        found.append(ledger.entries)
    for one, other in zip(*found, strict=True):
        assert (one.id, one.tokens, one.drafted, one.accepted) == (
            other.id,
            other.tokens,
            other.drafted,
            other.accepted,
        )
        assert other.identical
        assert other.seconds == pytest.approx(sum(other.round_seconds), abs=1e-5)
        assert other.cpu_seconds > 0
        assert bool(other.passes) == bool(one.passes)


def test_passes_of_each_kind() -> None:
    recompute = SelfSpeculative(2, 3, reuse_exit_states=False)
    policies: list[Steady] = [Autoregressive(), EarlyExit(1), FAST, recompute]
    prefills: dict[Steady, float] = {p: 1.0 + i for i, p in enumerate(policies)}
    times = pass_times(contest(policies).engine, 5, policies, prefills, middle=40)
    assert {p: t.prefill for p, t in times.items()} == prefills
    assert all(t.autoregressive_prefill == 1.0 and t.autoregressive_token > 0 and t.draft > 0 for t in times.values())
    assert times[FAST].last_draft > 0
    assert times[recompute].last_draft == 0, "the verification computes it"
    assert min(times[FAST].verify, times[recompute].verify) > 0
    assert times[EarlyExit(1)].verify == 0


def test_the_bandwidth_is_that_of_the_bytes_a_token_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    c = contest([Autoregressive(), FAST])
    n_bytes = sum(matrix.weight.nbytes for matrix in c.engine.model.matrices())
    shapes = []
    product = torch.mv
    monkeypatch.setattr(torch, "mv", lambda matrix, vector: shapes.append(matrix.nbytes) or product(matrix, vector))
    times = pass_times(c.engine, 5, c.policies, dict.fromkeys(c.policies, 1.0), middle=40)
    assert times[Autoregressive()].weight_bytes == n_bytes
    assert times[Autoregressive()].matrix_vector > 0
    assert times[FAST].matrix_vector == 0, "autoregressive decoding's is enough"
    # Whole rows of the model's width.
    assert all(n_bytes - 4 * c.engine.model.size.dim < n <= n_bytes for n in shapes)
