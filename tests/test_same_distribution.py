"""The comparison of distributions: its arithmetic, and that it passes right samplers and finds a wrong one."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from test_correctness import SMALL, call
from test_sampling import Markov

from conf.strict import ConfigError
from eval.engine.decoding import Engine
from eval.engine.policy import ConfidenceStop, Drafting, DynamicExit, SelfSpeculative
from eval.engine.sampling import Sampler, probabilities
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import StopRule
from eval.exactness.distribution import Verdict, chi_square, compare_distributions
from eval.exactness.divergence import UnexplainedError
from eval.setting import Setting
from eval.tasks.task import Sample


def counts(*numbers: int) -> Counter[tuple[int, ...]]:
    return Counter({(i,): n for i, n in enumerate(numbers)})


def test_chi_square_by_hand() -> None:
    statistic, cells, p = chi_square(counts(60, 40), counts(40, 60))
    assert (statistic, cells) == (8, 2)
    assert p == pytest.approx(0.0046777, rel=1e-4)  # P(|z| > sqrt 8)
    assert chi_square(counts(50, 30, 20), counts(50, 30, 20)) == (0, 3, 1)
    # Two degrees of freedom: exp(-x / 2).
    statistic, cells, p = chi_square(counts(50, 30, 20), counts(30, 50, 20))
    assert (statistic, cells) == (10, 3)
    assert p == pytest.approx(0.0067379, rel=1e-4)


def test_rare_texts_share_a_cell() -> None:
    # 3 + 2 and 4 + 3 are rare, together 12: a cell of their own, 7 against 5.
    assert chi_square(counts(90, 3, 4), counts(90, 2, 3))[:2] == (pytest.approx(4 / 12), 2)
    # 4 + 2 alone is too little, and joins the rarest of the others.
    assert chi_square(counts(60, 36, 4), counts(60, 38, 2))[:2] == (0, 2)
    assert chi_square(counts(1, 1, 1), Counter({(7,): 3})) == (0, 1, 1), "nothing is tested"


def verdict(policy: Drafting) -> Verdict:
    engine: Any = Engine(Markov(), 16)  # type: ignore[arg-type]
    options, stop = SamplingOptions(temperature=1.0, seed=5), StopRule(max_new_tokens=5)
    sample = Sample(id="s", prompt="", tokens=[2])
    (found,) = compare_distributions(
        engine,
        sample,
        {Setting.of(policy, 4): policy},
        stop,
        options,
        n=1500,
        first_tokens=3,
        done=lambda: None,
    )
    return found


@pytest.mark.parametrize(
    "policy", [SelfSpeculative(2, 1), SelfSpeculative(2, 3), ConfidenceStop(2, 3), DynamicExit((1, 2))]
)
def test_right_samplers_draw_from_one_distribution(policy: Drafting) -> None:
    found = verdict(policy)
    assert found.same
    assert found.cells > 20


def test_a_wrong_acceptance_rule_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rejected draft replaced by a draw from p, and not from the residual."""
    reject = Sampler._reject

    def wrong(self: Sampler, drafted: torch.Tensor, q: torch.Tensor, logits: torch.Tensor) -> Any:
        n, _ = reject(self, drafted, q, logits)
        p = probabilities(logits, self.options)
        return n, p.index_select(0, n.view(1))[0].multinomial(1, generator=self.generator)

    monkeypatch.setattr(Sampler, "_reject", wrong)
    assert not verdict(SelfSpeculative(2, 2)).same


SAMPLED = ["sampled=true", "sampled_prompts=1", "exit_layers=[2]", "num_speculations=[2]", "exit_states=[reuse]"]
SAMPLED += ["policies=[fixed]"]


def test_the_command_compares_distributions(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    again = [f"checkpoint={trained}", *SMALL, *SAMPLED, f"output={tmp_path}/c.json", "draws=300"]
    call(*again)
    assert "the same distribution (differs below 0.0001)" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="fall into one cell, which tests nothing"):
        call(*again, "sampling.top_k=1")
    accept = Sampler.accept

    def takes_the_best(self: Sampler, drafted: torch.Tensor, q: torch.Tensor, logits: torch.Tensor) -> Any:
        last = logits[0].argmax(-1, keepdim=True)
        return [int(last)], drafted.tolist(), last

    monkeypatch.setattr(Sampler, "accept", lambda self, *a: (accept if self.greedy else takes_the_best)(self, *a))
    with pytest.raises(UnexplainedError, match="decoders differ: 1 times"):
        call(*again)
    assert "ANOTHER DISTRIBUTION" in capsys.readouterr().out
