"""Sampled speculation has the full model's distribution: chi-square on tokens and pairs, with a negative control."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_decoding import CPU, Stub

from eval.engine.decoding import Engine
from eval.engine.policy import Autoregressive, Policy, SelfSpeculative
from eval.engine.sampling import Sampler, probabilities
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import StopRule

V = 5
N = 3000


class Markov(Stub):
    """The stub with random distributions in place of its two tables."""

    def __init__(self) -> None:
        super().__init__([0] * V, [0] * V)
        generator = torch.Generator().manual_seed(0)
        self.full = torch.randn(V, V, generator=generator) * 1.5
        self.draft = self.full + torch.randn(V, V, generator=generator) * 2

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        token, depth = x[..., 0].floor().long(), x[..., :1] % 1
        return torch.where(depth == 0.5, self.full[token], self.draft[token])


def pairs(policy: Policy, options: SamplingOptions) -> Counter[tuple[int, int]]:
    """Frequencies of the second and third token after a fixed prompt."""
    engine: Any = Engine(Markov(), 16)  # type: ignore[arg-type]
    counts: Counter[tuple[int, int]] = Counter()
    for i in range(N):
        rounds = engine.generate([2], policy, StopRule(max_new_tokens=5), replace(options, seed=options.seed * N + i))
        text = [t for r in rounds for t in r.tokens]
        counts[text[1], text[2]] += 1
    return counts


def chi_square(counts: Counter[tuple[int, int]], options: SamplingOptions) -> tuple[float, int]:
    """The statistic against the exact distribution, and its degrees of freedom; impossible pairs must not occur."""
    p = probabilities(Markov().full, options)
    second = p[2] @ p
    expected = {(a, b): N * (second[a] * p[a, b]).item() for a in range(V) for b in range(V)}
    assert all(expected[pair] > 0 for pair in counts)
    cells = {pair: e for pair, e in expected.items() if e >= 5}
    return sum((counts[pair] - e) ** 2 / e for pair, e in cells.items()), len(cells) - 1


def far_from(counts: Counter[tuple[int, int]], options: SamplingOptions) -> bool:
    """Whether the statistic is beyond about the 1e-5 quantile (mean + 5 deviations)."""
    statistic, freedom = chi_square(counts, options)
    return statistic > freedom + 5 * (2 * freedom) ** 0.5


FILTERS = [{"temperature": 1.0}, {"temperature": 0.7, "top_k": 3}, {"temperature": 1.3, "top_p": 0.8}]


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        (Autoregressive(), FILTERS[0]),
        (SelfSpeculative(2, 1), FILTERS[1]),
        *((SelfSpeculative(2, 2), f) for f in FILTERS),
        (SelfSpeculative(2, 3), FILTERS[0]),
    ],
)
def test_pairs_have_the_exact_distribution(policy: Policy, options: dict) -> None:
    sampling = SamplingOptions(seed=1, **options)
    assert not far_from(pairs(policy, sampling), sampling)


def test_a_wrong_acceptance_rule_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resampling from p in place of the residual, a common mistake, must fail the test above."""
    reject = Sampler._reject

    def wrong(self: Sampler, drafted: torch.Tensor, q: torch.Tensor, p: torch.Tensor) -> Any:
        n, _ = reject(self, drafted, q, p)
        return n, p.index_select(0, n.view(1))[0].multinomial(1, generator=self.generator)

    monkeypatch.setattr(Sampler, "_reject", wrong)
    sampling = SamplingOptions(seed=1, temperature=1.0)
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
