"""ROUGE-1, 2 and L (F1) in three variants that must not be mixed.

rouge2          PyPI's rouge_score: lower case, runs of a-z and 0-9
rouge2_stem     the same with its Porter stemmer, as in Draft & Verify
rouge2_paper    lower case, words as white space separates them, punctuation attached: LayerSkip's (torchmetrics with a
                normaliser that only lowers the case)
"""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

TYPES = ["rouge1", "rouge2", "rougeL"]


class _Words:
    """Tokenizer of the paper's variant."""

    def tokenize(self, text: str) -> list[str]:
        """Lower case, split at white space."""
        return text.lower().split()


@cache
def _scorers() -> "dict[str, RougeScorer]":
    from rouge_score.rouge_scorer import RougeScorer  # takes seconds, and configurations import their tasks

    return {
        "": RougeScorer(TYPES),
        "_stem": RougeScorer(TYPES, use_stemmer=True),
        "_paper": RougeScorer(TYPES, tokenizer=_Words()),
    }


def rouge(text: str, reference: str) -> dict[str, float]:
    """F1 of each type and variant, 0..1."""
    scores: dict[str, float] = {}
    for variant, scorer in _scorers().items():
        scores |= {f"{kind}{variant}": float(s.fmeasure) for kind, s in scorer.score(reference, text).items()}
    return scores
