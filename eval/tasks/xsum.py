"""XSUM: BBC articles and their one-sentence summaries, no shots (paper, Table 3)."""

from dataclasses import dataclass
from typing import ClassVar

from eval.tasks.summaries import Summaries


@dataclass(kw_only=True)
class XSum(Summaries):
    """0-shot, greedy, 512 new tokens; the paper's 7B leaves after 8 of 32 layers and drafts 12 tokens."""

    ARTICLE: ClassVar[str] = "document"
    SUMMARY: ClassVar[str] = "summary"
    EXIT_SHARES: ClassVar[tuple[float, ...]] = (8 / 32,)
    DRAFTS: ClassVar[tuple[int, ...]] = (12,)

    name: str = "xsum"
    source: str = "hf://EdinburghNLP/xsum"
    n_samples: int | None = 1000
