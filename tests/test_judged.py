"""Which drafts are judged, and what the models thought of them: by hand, and against what the engine really saw."""

import math
import random
from typing import Any

import pytest
import torch
from conftest import tiny_model
from evaluation import Bytes
from test_decoding import NEXT, SOMETIMES, Stub
from test_parity_hf import our_model

from eval.drafts.classes import Language
from eval.drafts.judged import Judged, RoundCounts, counts_of, judged_in
from eval.drafts.replay import disagrees, replay
from eval.drafts.sample import DraftedSample, drafted_sample, drafted_sample_from_json
from eval.engine import decoding
from eval.engine.choices import Accepted, Drafts
from eval.engine.decoding import Engine
from eval.engine.policy import SelfSpeculative
from eval.engine.rows import Round
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import StopRule
from models.inference import InferenceLlama

CPU = torch.device("cpu")
GREEDY = SamplingOptions()


def test_what_becomes_of_drafts() -> None:
    rounds = [
        Round([7], 0, 0),  # the prefill
        Round([1, 2, 9], 4, 2, (8, 5)),  # 1, 2 accepted; 8 rejected for 9; 5 fell with it
        Round([3, 4, 5], 2, 2),  # all accepted, 5 is the full model's
        Round([6], 3, 0, (1, 2, 3)),
        Round([4], 0, 0),  # nothing drafted
        Round([2, 0], 4, 2, (5,)),  # 0 ends the text: one more would have been accepted, 5 rejected
    ]
    assert [counts_of(r) for r in rounds] == [
        RoundCounts(0, 0, 0, 0),
        RoundCounts(2, 1, 1, 0),
        RoundCounts(2, 0, 0, 0),
        RoundCounts(0, 1, 2, 0),
        RoundCounts(0, 0, 0, 0),
        RoundCounts(2, 0, 0, 2),
    ]
    assert all(counts_of(r).drafted == r.n_drafted for r in rounds)
    assert judged_in(rounds) == [
        Judged(1, 1, 1, 1),
        Judged(2, 2, 2, 2),
        Judged(3, 3, 8, 9, lost=1),
        Judged(4, 1, 3, 3),
        Judged(5, 2, 4, 4),
        Judged(7, 1, 1, 6, lost=2),
        Judged(9, 1, 2, 2),
        Judged(10, 2, 0, 0),
    ]


def look(model: Any, prompt: list[int], policy: SelfSpeculative, n: int, **stop: Any) -> DraftedSample:
    engine = Engine(model)
    rule = StopRule(max_new_tokens=n, **stop)
    return drafted_sample(engine, Bytes(), prompt, policy, rule, GREEDY, language=Language.code, sample_id="a")


def test_a_stub_whose_every_draft_is_known() -> None:
    """The full model counts; the draft model does as well but after a multiple of 3, where it skips one."""
    stub: Any = Stub(NEXT, SOMETIMES)
    stub.dtype = torch.float32
    found = look(stub, [1], SelfSpeculative(2, 3), 12)
    assert found.tokens == [2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 1, 2]
    # After 2: 3 is right, 5 for 4 is not; after 4: 5, 6, then 8 for 7; after 7: 8, 9, then 11 = 0 for 10; and so on.
    assert [(d.at, d.position, d.draft, d.full, d.lost) for d in found.drafts] == [
        (1, 1, 3, 3, 0),
        (2, 2, 5, 4, 1),
        (3, 1, 5, 5, 0),
        (4, 2, 6, 6, 0),
        (5, 3, 8, 7, 0),
        (6, 1, 8, 8, 0),
        (7, 2, 9, 9, 0),
        (8, 3, 0, 10, 0),
        (9, 1, 0, 0, 0),
        (10, 2, 2, 1, 0),
    ]
    assert found.rounds == [
        RoundCounts(1, 1, 1, 0),
        RoundCounts(2, 1, 0, 0),
        RoundCounts(2, 1, 0, 0),
        RoundCounts(1, 1, 0, 0),
    ]
    one, other = math.e / (math.e + 10), 1 / (math.e + 10)  # logits are 1 and ten times 0
    entropy = -one * math.log2(one) - 10 * other * math.log2(other)
    for d in found.drafts:
        assert d.rank == d.rank_of_full == (1 if d.accepted else 2)
        assert d.full_probability == pytest.approx(one if d.accepted else other, abs=1e-6)
        assert (d.confidence, d.entropy) == pytest.approx((one, entropy), abs=1e-5)
    assert found.near_ties == found.unexplained == 0
    assert drafted_sample_from_json(found.as_json()) == found


def test_the_end_of_the_text_is_no_rejection() -> None:
    stub: Any = Stub(NEXT, SOMETIMES)
    stub.dtype = torch.float32
    found = look(stub, [3], SelfSpeculative(2, 4), 12, eos_ids=frozenset({5}))
    assert found.tokens == [4, 5]
    assert found.rounds == [RoundCounts(1, 0, 0, 3)]
    assert [(d.draft, d.full) for d in found.drafts] == [(5, 5)]
    assert look(stub, [4], SelfSpeculative(2, 4), 12, eos_ids=frozenset({5})).drafts == []


@pytest.fixture(scope="module")
def model() -> InferenceLlama:
    size = tiny_model()
    weights = our_model(size).state_dict()
    # Layers that do more than at the beginning of training, so that the exits differ.
    weights = {k: v * (2 if k.startswith("layers") and v.dim() == 2 else 1) for k, v in weights.items()}
    return InferenceLlama(size, weights, dtype=torch.float64, device=CPU)


class Watching(Drafts):
    """Notes what verification decides on, in each round that drafts."""

    seen: list[tuple[list[int], torch.Tensor, list[int], list[int]]]

    def accept(self, logits: torch.Tensor) -> list[Accepted]:
        [found] = super().accept(logits)
        Watching.seen.append((torch.cat(self.tokens, 1)[0].tolist(), logits[0].clone(), found.tokens, found.rejected))
        return [found]


@pytest.mark.parametrize(("exit_layer", "d", "reuse"), [(1, 3, True), (2, 5, True), (3, 1, True), (2, 4, False)])
def test_the_replay_sees_what_the_engine_saw(
    model: InferenceLlama, monkeypatch: pytest.MonkeyPatch, exit_layer: int, d: int, reuse: bool
) -> None:
    monkeypatch.setattr(decoding, "Drafts", Watching)
    rng, n_rejected, n_accepted = random.Random(d), 0, 0
    for _ in range(4):
        Watching.seen = []
        prompt = [rng.randrange(96) for _ in range(rng.randrange(1, 9))]
        found = look(model, prompt, SelfSpeculative(exit_layer, d, reuse), 40)
        at = iter(found.drafts)
        for (drafted, logits, ids, rejected), counts in zip(Watching.seen, found.rounds, strict=True):
            n = len(drafted) - len(rejected)
            assert counts == RoundCounts(n, int(n < len(drafted)), max(0, len(rejected) - 1), 0)
            for i in range(n + (n < len(drafted))):
                judged = next(at)
                assert (judged.draft, judged.full, judged.position) == (drafted[i], ids[i], i + 1)
                assert judged.accepted == (i < n)
                p = logits[i].softmax(-1)
                assert judged.rank == 1 + int((p > p[drafted[i]]).sum())
                assert judged.full_probability == pytest.approx(p[drafted[i]].item(), abs=1e-6)
        assert next(at, None) is None
        assert found.near_ties == found.unexplained == 0
        n_accepted += sum(c.accepted for c in found.rounds)
        n_rejected += sum(c.rejected for c in found.rounds)
    assert min(n_accepted, n_rejected) > 3, "both happen"


def test_confidence_and_entropy_are_the_exit_s(model: InferenceLlama) -> None:
    found = look(model, [5, 6, 7], SelfSpeculative(2, 3), 20)
    text = [5, 6, 7, *found.tokens]
    for d in found.drafts:
        before = text[: 3 + d.at]
        n = len(before)
        x = model.run(model.embed(torch.tensor([before])), model.new_cache(n), torch.arange(n), n, range(2))
        q = model.logits(x[0, -1]).softmax(-1)
        assert int(q.argmax()) == d.draft
        assert d.confidence == pytest.approx(q[d.draft].item(), abs=1e-6)
        assert d.rank_of_full == 1 + int((q > q[d.full]).sum())
        assert d.entropy == pytest.approx(torch.distributions.Categorical(q).entropy().item() / math.log(2), abs=1e-5)


def test_a_replay_of_something_else_is_found_out(model: InferenceLlama) -> None:
    """The negative control: another exit, another prompt, accepted and rejected confused."""
    engine, prompt = Engine(model), [5, 6, 7]
    rounds = list(engine.generate(prompt, SelfSpeculative(1, 3), StopRule(max_new_tokens=30)))
    new, judged = [t for r in rounds for t in r.tokens], judged_in(rounds)

    def errors(prompt: list[int], exit_layer: int, judged: list[Judged]) -> int:
        return sum(disagrees(t, torch.float64) is True for t in replay(engine.model, prompt, new, exit_layer, judged))

    assert errors(prompt, 1, judged) == 0
    assert errors(prompt, 2, judged) > 0
    assert errors([1, 1, 1], 1, judged) > 0
    assert errors(prompt, 1, [j._replace(full=j.draft) for j in judged]) == sum(not j.accepted for j in judged) > 0
    assert errors(prompt, 1, [j._replace(at=j.at - 1) for j in judged if j.at]) > 0


def test_a_toss_up_is_told_from_an_error(model: InferenceLlama) -> None:
    engine, prompt = Engine(model), [5, 6, 7]
    rounds = list(engine.generate(prompt, SelfSpeculative(1, 3), StopRule(max_new_tokens=9)))
    (thought, *_) = replay(engine.model, prompt, [t for r in rounds for t in r.tokens], 1, judged_in(rounds))
    assert disagrees(thought, torch.float32) is False
    # 256 steps of float32 at a logit of 2.5 are 6.1e-5.
    assert disagrees(thought._replace(draft_gap=5e-5), torch.float32) is None
    assert disagrees(thought._replace(draft_gap=7e-5), torch.float32) is True
    assert disagrees(thought._replace(full_gap=5e-4), torch.float64) is True
    broken = InferenceLlama(
        model.size,
        {k: v * float("nan") for k, v in our_model(model.size).state_dict().items()},
        dtype=torch.float32,
        device=CPU,
    )
    with pytest.raises(FloatingPointError, match="not numbers"):
        look(broken, prompt, SelfSpeculative(1, 3), 9)


def test_drawn_tokens_have_no_first_choice(model: InferenceLlama) -> None:
    rule, sampling = StopRule(max_new_tokens=40), SamplingOptions(temperature=1.0)
    policy = SelfSpeculative(2, 3)
    found = drafted_sample(Engine(model), Bytes(), [5], policy, rule, sampling, language=Language.code)
    assert found.unexplained == found.near_ties == 0
    assert any(d.rank > 1 for d in found.drafts if d.accepted)
    assert sum(c.accepted + c.rejected for c in found.rounds) == len(found.drafts)
