"""Do plain and self-speculative sampling draw from one distribution? A chi-square test on the first tokens."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from eval.engine.decoding import Engine
from eval.engine.policy import Autoregressive, Drafting, Policy, most_drafts
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import StopRule
from eval.setting import Setting
from eval.tasks.task import Sample

SMALLEST_P = 1e-4
"""Below it distributions differ."""
SMALLEST_CELL = 10
"""Texts in both samples together; rarer texts share a cell."""

Texts = Counter[tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The test of one prompt and one way to draft."""

    sample: str
    decoder: Setting
    draws: int
    cells: int
    """Outcomes that are distinguished."""
    statistic: float
    p: float
    """How often chance alone makes so much of a difference."""

    @property
    def same(self) -> bool:
        """Whether chance explains the difference."""
        return self.p >= SMALLEST_P


def drawn(
    engine: Engine,
    policy: Policy,
    prompt: list[int],
    stop: StopRule,
    options: SamplingOptions,
    n: int,
    first_tokens: int,
) -> Texts:
    """How often each text of at most `first_tokens` tokens came in n draws, with seeds from that of the options on."""
    # After the prefill's token a round must have room for all its drafts and one token more.
    stop = replace(stop, max_new_tokens=max(first_tokens, most_drafts(policy) + 2))
    texts = Texts()
    for seed in range(options.seed, options.seed + n):
        text: list[int] = []
        for round_ in engine.generate(prompt, policy, stop, replace(options, seed=seed)):
            text += round_.tokens
            if len(text) >= first_tokens:
                break
        texts[tuple(text[:first_tokens])] += 1
    return texts


def chi_square(one: Texts, other: Texts) -> tuple[float, int, float]:
    """Compare two samples of equal size: the statistic, the cells, and the probability of so large a one by chance.

    sum over cells of (a - b)^2 / (a + b), with one degree of freedom less than there are cells.
    """
    both = one + other
    cells = [(one[text], other[text]) for text, count in both.items() if count >= SMALLEST_CELL]
    rare = [(one[text], other[text]) for text, count in both.items() if count < SMALLEST_CELL]
    if rare:
        last = tuple(map(sum, zip(*rare, strict=True)))
        if sum(last) < SMALLEST_CELL and cells:  # too few for a cell of their own: with the rarest of the others
            cells.sort(key=sum)
            last = tuple(map(sum, zip(last, cells.pop(0), strict=True)))
        cells.append((last[0], last[1]))
    statistic = sum((a - b) ** 2 / (a + b) for a, b in cells)
    freedom = len(cells) - 1
    p = torch.special.gammaincc(torch.tensor(freedom / 2).double(), torch.tensor(statistic / 2).double())
    return statistic, len(cells), float(p) if freedom else 1.0


def compare_distributions(
    engine: Engine,
    sample: Sample,
    policies: dict[Setting, Drafting],
    stop: StopRule,
    options: SamplingOptions,
    *,
    n: int,
    first_tokens: int,
    done: Callable[[], object],
) -> list[Verdict]:
    """Each policy against autoregressive sampling of the same sample's prompt, with other seeds; `done` is called after
    each.
    """
    autoregressive = drawn(engine, Autoregressive(), sample.tokens, stop, options, n, first_tokens)
    done()
    found = []
    for i, (setting, policy) in enumerate(policies.items(), 1):
        texts = drawn(engine, policy, sample.tokens, stop, replace(options, seed=options.seed + i * n), n, first_tokens)
        statistic, cells, p = chi_square(autoregressive, texts)
        found.append(Verdict(sample=sample.id, decoder=setting, draws=n, cells=cells, statistic=statistic, p=p))
        done()
    return found
