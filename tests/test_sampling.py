"""Sampled speculation has the full model's distribution: chi-square on tokens and pairs, with a negative control."""

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers.generation.logits_process as theirs
from conftest import tiny_model
from test_decoding import CPU, Stub
from test_parity_hf import hf_model

from eval.engine.decoding import Engine
from eval.engine.policy import (
    Autoregressive,
    ConfidenceStop,
    DraftModel,
    DynamicExit,
    Policy,
    PromptLookup,
    SelfSpeculative,
)
from eval.engine.sampling import Sampler, draw, penalised, probabilities
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import StopRule
from models.inference import InferenceLlama
from models.storage.hf import from_hf

V = 5
N = 3000
PROMPT = [0, 2, 4, 1, 2, 3, 2]
"""Repeats itself, so that there is something to look up."""


class Markov(Stub):
    """The stub with random distributions in place of its two tables."""

    def __init__(self) -> None:
        super().__init__([0] * V, [0] * V)
        self.size.vocab_size = V
        generator = torch.Generator().manual_seed(0)
        self.full = torch.randn(V, V, generator=generator) * 1.5
        self.draft = self.full + torch.randn(V, V, generator=generator) * 2

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        token, depth = x[..., 0].floor().long(), x[..., :1] % 1
        return torch.where(depth == 0.5, self.full[token], self.draft[token])


def pairs(policy: Policy, options: SamplingOptions) -> Counter[tuple[int, int]]:
    """Frequencies of the second and third token after PROMPT, or after its last token where others are penalised."""
    engine: Any = Engine(Markov(), 16)  # type: ignore[arg-type]
    counts: Counter[tuple[int, int]] = Counter()
    for i in range(N):
        one = replace(options, seed=options.seed * N + i)
        rounds = engine.generate(prompt_of(options), policy, StopRule(max_new_tokens=5), one)
        text = [t for r in rounds for t in r.tokens]
        counts[text[1], text[2]] += 1
    return counts


def prompt_of(options: SamplingOptions) -> list[int]:
    return PROMPT if options.repetition_penalty == 1 else PROMPT[-1:]


def following(text: list[int], options: SamplingOptions) -> list[float]:
    """The exact distribution after a text, made without the sampler's memory."""
    logits, penalty = Markov().full[text[-1]], options.repetition_penalty
    seen = torch.tensor([t in text for t in range(V)])
    return probabilities(penalised(logits, seen, penalty) if penalty != 1 else logits, options).tolist()


def chi_square(counts: Counter[tuple[int, int]], options: SamplingOptions) -> tuple[float, int]:
    """The statistic against the exact distribution, and its degrees of freedom; infinite if impossible pairs occur."""
    expected, prompt = Counter[tuple[int, int]](), prompt_of(options)
    for first, p1 in enumerate(following(prompt, options)):
        for second, p2 in enumerate(following([*prompt, first], options)):
            for third, p3 in enumerate(following([*prompt, first, second], options)):
                expected[second, third] += N * p1 * p2 * p3  # type: ignore[assignment]
    if any(expected[pair] == 0 for pair in counts):
        return float("inf"), 1
    cells = {pair: e for pair, e in expected.items() if e >= 5}
    return sum((counts[pair] - e) ** 2 / e for pair, e in cells.items()), len(cells) - 1


def far_from(counts: Counter[tuple[int, int]], options: SamplingOptions) -> bool:
    """Whether the statistic is beyond about the 1e-5 quantile (mean + 5 deviations)."""
    statistic, freedom = chi_square(counts, options)
    return statistic > freedom + 5 * (2 * freedom) ** 0.5


FILTERS = [{"temperature": 1.0}, {"temperature": 0.7, "top_k": 3}, {"temperature": 1.3, "top_p": 0.8}]
MIN_P = {"temperature": 1.2, "min_p": 0.15}
PENALTY = {"temperature": 1.0, "repetition_penalty": 3.0, "min_p": 0.05}


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        (Autoregressive(), FILTERS[0]),
        (SelfSpeculative(2, 1), FILTERS[1]),
        (SelfSpeculative(2, 2), FILTERS[2]),
        (SelfSpeculative(2, 3), PENALTY),
        (PromptLookup(2), FILTERS[2]),
        (ConfidenceStop(2, 3), FILTERS[0]),
        (DynamicExit((1, 2)), FILTERS[2]),
        *(
            pytest.param(*more, marks=pytest.mark.slow)
            for more in (
                *((SelfSpeculative(2, 2), f) for f in (*FILTERS[:2], MIN_P)),
                *((p, PENALTY) for p in (DraftModel(2, 2), PromptLookup(2))),
                (SelfSpeculative(2, 3), FILTERS[0]),
                (Autoregressive(), PENALTY),
                (DraftModel(2, 3), FILTERS[0]),
                (PromptLookup(3), FILTERS[0]),
            )
        ),
    ],
)
def test_pairs_have_the_exact_distribution(policy: Policy, options: dict) -> None:
    sampling = SamplingOptions(seed=1, **options)
    assert not far_from(pairs(policy, sampling), sampling)


def test_a_wrong_acceptance_rule_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resampling from p in place of the residual, a common mistake, must fail the test above."""
    reject = Sampler._reject

    def wrong(self: Sampler, drafted: torch.Tensor, q: torch.Tensor, logits: torch.Tensor) -> Any:
        n, _ = reject(self, drafted, q, logits)
        p = probabilities(logits, self.options)
        return n, p.index_select(0, n.view(1))[0].multinomial(1, generator=self.generator)

    monkeypatch.setattr(Sampler, "_reject", wrong)
    sampling = SamplingOptions(seed=1, temperature=1.0)
    assert far_from(pairs(SelfSpeculative(2, 2), sampling), sampling)


def test_a_draft_that_leaves_its_unsure_token_out_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unsure token must stay in its draft: left out, it is drawn anew from p, and its like grow rare."""
    accept = Sampler.accept

    def without_the_last(self: Sampler, drafted: torch.Tensor, q: torch.Tensor, logits: torch.Tensor) -> Any:
        if q[-1, drafted[-1]] > 0.5:
            return accept(self, drafted, q, logits)
        if len(drafted) == 1:
            last = self.pick(logits[0])
            return last.tolist(), drafted.tolist(), last
        ids, rejected, last = accept(self, drafted[:-1], q[:-1], logits[:-1])
        return ids, [*rejected, int(drafted[-1])], last

    monkeypatch.setattr(Sampler, "accept", without_the_last)
    sampling = SamplingOptions(seed=1, temperature=1.0)
    assert far_from(pairs(ConfidenceStop(2, 2), sampling), sampling)


def test_a_penalty_that_does_not_know_the_drafts_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verification with the tokens seen before the round, as if its drafts were not among them."""

    def wrong(self: Sampler, logits: torch.Tensor, drafted: torch.Tensor) -> torch.Tensor:
        assert self.seen is not None
        return penalised(logits, self.seen, self.options.repetition_penalty)

    monkeypatch.setattr(Sampler, "_penalised_rows", wrong)
    sampling = SamplingOptions(seed=1, **PENALTY)
    assert far_from(pairs(SelfSpeculative(2, 2), sampling), sampling)


def test_a_filter_of_the_draft_alone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """min-p applied to q and not to p: tokens come that must not."""
    accept = Sampler.accept

    def wrong(self: Sampler, *args: Any) -> Any:
        options, self.options = self.options, replace(self.options, min_p=0.0)
        try:
            return accept(self, *args)
        finally:
            self.options = options

    monkeypatch.setattr(Sampler, "accept", wrong)
    sampling = SamplingOptions(seed=1, **MIN_P)
    assert far_from(pairs(SelfSpeculative(2, 2), sampling), sampling)


def test_equal_distributions_accept_everything() -> None:
    sampler = Sampler(SamplingOptions(temperature=1.0), CPU)
    logits = torch.randn(1, V)
    p = probabilities(logits, sampler.options)
    for _ in range(500):
        drafted = p[0].multinomial(1, generator=sampler.generator)
        ids, rejected, _ = sampler.accept(drafted, p, torch.cat([logits, logits]))
        assert ids[:1] == drafted.tolist()
        assert not rejected


def test_filters_by_hand() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert probabilities(logits, SamplingOptions(temperature=1.0, top_k=2)).tolist() == pytest.approx(
        [0.625, 0.375, 0, 0]
    )
    # 0.5 does not reach 0.7, 0.8 does.
    assert probabilities(logits, SamplingOptions(temperature=1.0, top_p=0.7)).tolist() == pytest.approx(
        [0.625, 0.375, 0, 0]
    )
    assert probabilities(logits, SamplingOptions(temperature=0.5)).tolist() == pytest.approx(
        [0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365]
    )
    # Half of 0.5 is more than 0.15.
    assert probabilities(logits, SamplingOptions(temperature=1.0, min_p=0.5)).tolist() == pytest.approx(
        [0.625, 0.375, 0, 0]
    )
    assert probabilities(logits, SamplingOptions(temperature=1.0, min_p=1.0)).tolist() == [1, 0, 0, 0]


def test_draws_by_frequency_and_never_what_has_no_weight() -> None:
    weights, generator = torch.tensor([0.0, 3.0, 0.0, 1.0, 4.0, 0.0]), torch.Generator().manual_seed(3)
    n = 4000
    found = torch.cat([draw(weights, generator) for _ in range(n)]).bincount(minlength=6)
    expected = n * weights / weights.sum()
    assert not found[weights == 0].any()
    assert ((found - expected)[weights > 0] ** 2 / expected[weights > 0]).sum() < 20  # 2 degrees of freedom, p < 1e-4
    huge = torch.rand(200_000, generator=generator).float()
    assert 0 <= int(draw(huge, generator)) < len(huge)


def test_penalty_by_hand() -> None:
    seen = torch.tensor([True, True, False, False])
    assert penalised(torch.tensor([2.0, -2.0, 2.0, -2.0]), seen, 4.0).tolist() == [0.5, -8, 2, -2]


def warped_by_transformers(logits: torch.Tensor, text: list[int], options: SamplingOptions) -> torch.Tensor:
    """What transformers draws from: its processors, in the order in which its generate applies them."""
    scores, ids = logits.clone()[None], torch.tensor([text])
    steps = [
        theirs.RepetitionPenaltyLogitsProcessor(options.repetition_penalty),
        theirs.TemperatureLogitsWarper(options.temperature),
        theirs.TopKLogitsWarper(options.top_k),
        theirs.TopPLogitsWarper(options.top_p),
        theirs.MinPLogitsWarper(options.min_p),
    ]
    for step in steps:
        scores = step(ids, scores)
    return scores[0].softmax(-1)


def test_the_distribution_is_that_of_transformers() -> None:
    options = SamplingOptions(temperature=0.8, top_k=25, top_p=0.9, min_p=0.08, repetition_penalty=1.4)
    for seed in range(20):
        torch.manual_seed(seed)
        logits, text = torch.randn(40) * 2, torch.randint(40, (12,)).tolist()
        sampler = Sampler(options, CPU)
        sampler.begin(text, 40)
        _, ours = sampler.draft(logits)
        assert ours is not None
        torch.testing.assert_close(ours, warped_by_transformers(logits, text, options))


@pytest.mark.parametrize("penalty", [1.3, 0.7])
def test_greedy_with_a_penalty_is_generate_of_transformers(penalty: float) -> None:
    size = tiny_model(n_layers=5, vocab_size=24)
    reference = hf_model(size).double()
    model = InferenceLlama(size, from_hf(reference.state_dict(), size), dtype=torch.float64, device=CPU)
    rng, accepted, differs = random.Random(0), 0, 0
    for _ in range(12):
        prompt = [rng.randrange(24) for _ in range(rng.randrange(2, 20))]
        ids = torch.tensor([prompt])
        texts = []
        for theirs_penalty in (penalty, 1.0):
            out = reference.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=24,
                do_sample=False,
                repetition_penalty=theirs_penalty,
                eos_token_id=None,
                pad_token_id=0,
            )
            texts.append(out[0, len(prompt) :].tolist())  # type: ignore[index]
        differs += texts[0] != texts[1]
        options, d = SamplingOptions(repetition_penalty=penalty), rng.randrange(1, 6)
        for policy in (Autoregressive(), SelfSpeculative(rng.randrange(1, 5), d), DraftModel(3, d), PromptLookup(d)):
            rounds = list(Engine(model).generate(prompt, policy, StopRule(max_new_tokens=24), options))
            assert [t for r in rounds for t in r.tokens] == texts[0], policy
            accepted += sum(r.n_accepted for r in rounds)
    assert accepted
    assert differs, "the penalty must have had an effect"
