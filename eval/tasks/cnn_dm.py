"""CNN/DailyMail: news articles and their highlights, one shot (paper, Tables 3, 4 and 7)."""

from dataclasses import dataclass
from typing import ClassVar

from eval.tasks.summaries import Summaries


@dataclass(kw_only=True)
class CnnDm(Summaries):
    """1-shot, greedy, 512 new tokens; the paper's 7B leaves after 8 of 32 layers and drafts 12 tokens."""

    ARTICLE: ClassVar[str] = "article"
    SUMMARY: ClassVar[str] = "highlights"
    EXIT_SHARES: ClassVar[tuple[float, ...]] = (8 / 32,)
    DRAFTS: ClassVar[tuple[int, ...]] = (12,)

    name: str = "cnn_dm"
    source: str = "hf://abisee/cnn_dailymail"
    subset: str | None = "3.0.0"
    n_samples: int | None = 1000
    n_shots: int = 1
