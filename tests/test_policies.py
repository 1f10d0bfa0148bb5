"""Policies: their arithmetic by hand, that they find what is fastest, and that no plan changes a text."""

import math
import random
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_decoding import NEXT, SOMETIMES, Stub, tiny, tokens

from eval.engine.decoding import Engine
from eval.engine.one_pass import logits_by_exit
from eval.engine.policies.confidence import Confident, Threshold
from eval.engine.policies.decayed import DecayedMean
from eval.engine.policies.dynamic import Acceptance, Dynamic, RoundTimes, exits_to_try, expected_tokens
from eval.engine.policies.session import session
from eval.engine.policy import (
    MOST_DRAFTS,
    Autoregressive,
    ConfidenceStop,
    DynamicExit,
    EarlyExit,
    Outcome,
    Plan,
    Policy,
    SelfSpeculative,
    check_fits,
)
from eval.engine.rows import Request
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import StopRule

SIZE: Any = SimpleNamespace(
    n_layers=16, vocab_size=4096, head_dim=64, n_heads=3, n_kv_heads=1, kv_heads=1, ffn_dim=512, dim=192
)


def test_steady_policies_plan_what_they_say() -> None:
    assert session(Autoregressive(), SIZE).plan(9) == Plan(16)
    assert session(EarlyExit(3), SIZE).plan(9) == Plan(3)
    drafting = session(SelfSpeculative(4, 6, reuse_exit_states=False), SIZE)
    assert drafting.plan(9) == Plan(4, 6, reuse_exit_states=False)
    assert drafting.plan(2) == Plan(4, 2, reuse_exit_states=False)
    assert drafting.plan(0) == Plan(16), "without room one token by all layers"


def test_a_decayed_mean_by_hand() -> None:
    mean = DecayedMean(0.95)
    assert mean.mean is None
    mean.add(1.0)
    assert mean.mean == 1.0
    mean.add(0.0)
    assert mean.mean == pytest.approx(0.95 / 1.95)
    assert mean.shrunk(0.5, 2.0) == pytest.approx((0.95 + 1.0) / (1.95 + 2.0))
    mean.add(0.0, weight=0.0)
    assert mean.mean == pytest.approx(0.95 / 1.95), "of no weight"
    assert mean.shrunk(0.5, 2.0) == pytest.approx((0.95**2 + 1.0) / (0.95 * 1.95 + 2.0))


def test_the_threshold_by_hand() -> None:
    threshold = Threshold()
    plan = Plan(4, 3, stop_below=0.0)
    threshold.learn(Outcome(plan, 3, (3,), ((0.9, 0.8, 0.7),)))
    assert threshold.tau == 0.0, "nothing was rejected yet"
    # Accepted 0.6; rejected 0.2; nothing is known of 0.99 behind it.
    threshold.learn(Outcome(plan, 3, (1,), ((0.6, 0.2, 0.99),)))
    accepted = (0.9 * 0.95**3 + 0.8 * 0.95**2 + 0.7 * 0.95 + 0.6) / (0.95**3 + 0.95**2 + 0.95 + 1)
    assert threshold.tau == pytest.approx((accepted + 0.2) / 2)
    # A batch: a row with its first draft rejected, a row with all accepted.
    threshold.learn(Outcome(plan, 1, (0, 1), ((0.4,), (1.0,))))
    assert threshold.rejected.mean == pytest.approx((0.2 * 0.95 + 0.4) / 1.95)
    assert threshold.tau == pytest.approx((threshold.accepted.mean + threshold.rejected.mean) / 2)  # type: ignore[operator]


def test_each_exit_has_its_threshold() -> None:
    at_work = Confident(Plan(4, 3), 16)
    assert at_work.plan(9) == Plan(4, 3, stop_below=0.0)
    at_work.learn(Outcome(at_work.plan(9), 2, (1,), ((0.8, 0.4),)))
    assert at_work.plan(9).stop_below == pytest.approx(0.6)
    assert at_work.plan(0) == Plan(16)
    at_work.learn(Outcome(Plan(16), 0, (0,)))
    assert set(at_work.thresholds) == {4}


def test_expected_tokens() -> None:
    rng = random.Random(0)
    for _ in range(50):
        a = [rng.random() for _ in range(rng.randrange(12))]
        tokens, reached = 1.0, 1.0
        for x in a:
            reached, tokens = reached * x, tokens + reached * x
        assert expected_tokens(a)[-1] == pytest.approx(tokens)


def test_acceptance_by_position() -> None:
    seen = Acceptance()
    for _ in range(200):
        seen.learn([1.0, 0.0])
    first, second, third, *_ = seen.chances()
    assert first > 0.97
    assert second < 0.1
    # Never reached: like the one before.
    assert third == pytest.approx(second)
    for _ in range(500):
        seen.learn([1.0])
    first, second, *_ = seen.chances()
    assert second == pytest.approx(first, rel=0.02), "no longer reached, what was seen of it is forgotten"


@pytest.mark.parametrize("draft_head", [2.0, 0.25])
def test_rates_are_the_formula(draft_head: float) -> None:
    at_work = Dynamic((2, 4), 16, 2.0, draft_head)
    for plan in list(at_work._first):
        d = plan.num_speculations
        verify = (18 - plan.exit_layer) * (1e-3 + 1e-4 * (d + 1))
        below = 1e-3 * (plan.exit_layer + draft_head) * d + 1e-3 * plan.exit_layer
        at_work.learn(Outcome(plan, d, (d // 2,), (), below if d else None, verify if d else 18e-3))
    rates = at_work.rates()
    assert rates[16, 0] == pytest.approx(1 / 18e-3)
    for e in (2, 4):
        a = at_work.acceptance[e].chances()
        for d in range(1, MOST_DRAFTS + 1):
            seconds = d * 1e-3 * (e + draft_head) + 1e-3 * e + (18 - e) * (1e-3 + 1e-4 * (d + 1))
            expected = 1 + sum(torch.tensor(a[:i]).prod().item() for i in range(1, d + 1))
            assert rates[e, d] == pytest.approx(expected / seconds, rel=1e-5)


def test_a_pause_of_the_machine_is_no_slow_pass() -> None:
    times = RoundTimes(16, 2.0, 2.0)
    for i in range(9):
        times.learn(Outcome(Plan(4, 2, timed=True), 2, (1,), (), 10.0 if i == 4 else 1.0, 1.0))
    assert times.rounds(4)[1] == pytest.approx(2.0)


@dataclass
class World:
    """A model that is known by its chances of acceptance and its times, without a model."""

    chances: dict[int, float]
    block: float = 1e-3
    head: float = 2.0
    wider: float = 0.03
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    def seconds(self, e: int, d: int) -> tuple[float, float]:
        noise = self.rng.uniform(0.9, 1.1) * (8 if self.rng.random() < 0.02 else 1)
        below = self.block * (d * (e + self.head) + e) * noise
        return below, self.block * (16 - e + self.head) * (1 + self.wider * d) * noise

    def rate(self, e: int, d: int) -> float:
        """Tokens per second, as they are on average."""
        if not d:
            return 1 / (self.block * (16 + self.head))
        tokens = sum(self.chances[e] ** i for i in range(d + 1))
        return tokens / (self.block * (d * (e + self.head) + e + (16 - e + self.head) * (1 + self.wider * d)))

    def outcome(self, plan: Plan, rows: int = 1) -> Outcome:
        e, d = plan.exit_layer, plan.num_speculations
        if not d:
            return Outcome(plan, 0, (0,) * rows, verify_seconds=self.block * (16 + self.head))
        taken = tuple(self.run(self.chances[e], d) for _ in range(rows))
        agreements = {
            p: tuple(tuple(float(self.rng.random() < self.chances[p]) for _ in range(n + 1)) for n in taken)
            for p in plan.probe
        }
        below, above = self.seconds(e, d) if plan.timed else (None, None)
        return Outcome(plan, d, taken, (), below, above, agreements)

    def run(self, chance: float, d: int) -> int:
        return next((i for i in range(d) if self.rng.random() > chance), d)


def live(at_work: Dynamic, world: World, n: int, rows: int = 1) -> list[Plan]:
    plans = []
    for _ in range(n):
        plans.append(at_work.plan(99))
        at_work.learn(world.outcome(plans[-1], rows))
    return plans


KNOWN = {
    "a low exit": {2: 0.85, 4: 0.87, 8: 0.9},
    "a middle exit": {2: 0.2, 4: 0.85, 8: 0.87},
    "a high exit": {2: 0.02, 4: 0.05, 8: 0.97},
    "none": {2: 0.02, 4: 0.05, 8: 0.1},
}


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("chances", KNOWN.values(), ids=KNOWN)
def test_dynamic_finds_the_known_best(chances: dict[int, float], rows: int) -> None:
    world, at_work = World(chances), Dynamic((2, 4, 8), 16, 2.0, 2.0)
    plans = live(at_work, world, 400, rows)[100:]
    best = max(world.rate(e, d) for e, d in [(16, 0), *((e, d) for e in chances for d in range(1, 13))])
    share = sum(world.rate(p.exit_layer, p.num_speculations) for p in plans) / len(plans) / best
    assert share > 0.98, share


def test_dynamic_follows_a_change() -> None:
    world, at_work = World(KNOWN["a low exit"]), Dynamic((2, 4, 8), 16, 2.0, 2.0)
    assert Counter(p.exit_layer for p in live(at_work, world, 200)[150:]).most_common(1)[0][0] == 2
    world.chances = KNOWN["a middle exit"]
    assert Counter(p.exit_layer for p in live(at_work, world, 300)[200:]).most_common(1)[0][0] == 4
    world.chances = KNOWN["none"]
    assert live(at_work, world, 300)[-1].num_speculations == 0
    world.chances = KNOWN["a low exit"]
    plans = live(at_work, world, 1200)[1000:]
    best = max(world.rate(e, d) for e in world.chances for d in range(1, 13))
    assert sum(world.rate(p.exit_layer, p.num_speculations) for p in plans) / len(plans) > 0.95 * best, "left again"


def test_which_exits_are_tried() -> None:
    assert exits_to_try(16) == (2, 3, 4, 6, 8)
    assert exits_to_try(30) == (4, 6, 8, 11, 15)
    assert exits_to_try(2) == (1,)
    assert all(1 <= e < n for n in range(2, 50) for e in exits_to_try(n))


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (ConfidenceStop(5, 3), r"exit_layer=5: must lie in 1\.\.4"),
        (ConfidenceStop(2, 0), r"num_speculations=0: must be at least 1"),
        (DynamicExit((1, 5)), r"exit_layer=5: must lie in 1\.\.4"),
    ],
)
def test_policies_that_do_not_fit(policy: Policy, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_fits(policy, 5)


@pytest.mark.parametrize("policy", [ConfidenceStop(2, 6), ConfidenceStop(1, 1), DynamicExit(), DynamicExit((3, 4))])
def test_the_text_is_that_of_plain_decoding(policy: Policy) -> None:
    model, rng = tiny(), random.Random(3)
    engine, stopped = Engine(model), 0
    for _ in range(25):
        prompt, n = [rng.randrange(24) for _ in range(rng.randrange(1, 20))], rng.randrange(1, 60)
        stop = StopRule(max_new_tokens=n, eos_ids=frozenset({rng.randrange(24)}))
        rounds = list(engine.generate(prompt, policy, stop))
        assert tokens(rounds) == tokens(list(engine.generate(prompt, Autoregressive(), stop)))
        stopped += sum(0 < r.n_drafted < 6 for r in rounds)
    assert stopped, "rounds differ"


@pytest.mark.parametrize("policy", [ConfidenceStop(2, 6), DynamicExit((1, 3))])
def test_the_texts_of_a_batch_are_those_of_plain_decoding(policy: Policy) -> None:
    model, rng = tiny(), random.Random(4)
    engine, alone = Engine(model, None, 3), Engine(model)
    requests = [
        Request([rng.randrange(24) for _ in range(rng.randrange(1, 20))], StopRule(max_new_tokens=rng.randrange(1, 40)))
        for _ in range(12)
    ]
    texts: dict[int, list[int]] = {}
    for rounds in engine.generate_all(requests, policy):
        for number, round_ in rounds:
            texts.setdefault(number, []).extend(round_.tokens)
    for number, request in enumerate(requests):
        plain = tokens(list(alone.generate(request.prompt, Autoregressive(), request.stop)))
        assert texts[number] == plain, number


class Doubtful(Stub):
    """Behind tokens 0, 3, 6 and 9, where its draft is wrong, its confidence is e / (e + 10), elsewhere nearly 1."""

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        unsure = x[..., :1].floor() % 3 == 0
        return super().logits(x) * torch.where(unsure, 1.0, 30.0)


def test_a_draft_ends_behind_an_unsure_token() -> None:
    engine: Any = Engine(Doubtful(NEXT, SOMETIMES), 64)  # type: ignore[arg-type]
    policy = ConfidenceStop(2, 4)
    rounds = list(engine.generate([0], policy, StopRule(max_new_tokens=14)))
    assert [r.tokens for r in rounds] == [[1], [2, 3, 4], [5, 6, 7], [8, 9, 10], [0, 1], [2, 3]]
    # At first nothing was rejected, and 4 tokens are drafted; from then on as many as are right, and the unsure one.
    assert [r.n_drafted for r in rounds[1:5]] == [4, 3, 3, 2]
    assert [r.n_accepted for r in rounds[1:5]] == [2, 2, 2, 1]
    assert engine.sessions[policy].thresholds[2].tau == pytest.approx((1 + math.e / (math.e + 10)) / 2, rel=1e-5)


class Witness:
    """A session that passes plans through and remembers outcomes."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.outcomes = inner, list[Outcome]()

    def plan(self, room: int) -> Plan:
        plan: Plan = self.inner.plan(room)
        return plan._replace(probe=(1, 3, 4)) if plan.num_speculations else plan

    def learn(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("reuse", [True, False])
def test_probes_see_what_each_exit_would_have_drafted(reuse: bool, temperature: float) -> None:
    model, policy = tiny(), SelfSpeculative(2, 3, reuse)
    engine, prompt, options = Engine(model), [3, 1, 4], SamplingOptions(temperature=temperature)
    witness = Witness(session(policy, model.size))
    engine.sessions[policy] = witness
    text = tokens(list(engine.generate(prompt, policy, StopRule(max_new_tokens=40), options)))
    given = torch.tensor([[*prompt, *text]])
    places = torch.arange(len(prompt), len(prompt) + len(text) - 1)
    with torch.inference_mode():
        by_exit = [torch.cat([c for _, c in chunks]) for chunks in logits_by_exit(model, given, [1, 3, 4, 5], places)]
    full = by_exit.pop()
    for exit_layer, logits in zip((1, 3, 4), by_exit, strict=True):
        seen = [c for o in witness.outcomes if o.agreements for row in o.agreements[exit_layer] for c in row]
        if temperature:
            expected = torch.minimum(logits.softmax(-1), full.softmax(-1)).sum(-1)
        else:
            expected = (logits.argmax(-1) == full.argmax(-1)).double()
        assert 20 < len(seen) <= len(expected)
        assert seen == pytest.approx(expected[: len(seen)].tolist(), abs=1e-6)
