"""CNN/DailyMail as plain continuation: the first 100 words of an article, of which the rest is the reference."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from data.config import SourceConfig
from data.sources.rows import read_rows
from eval.tasks.references import limit_by
from eval.tasks.rouge import rouge
from eval.tasks.task import Chosen, Sample, Selection, Task, chosen_indices, fitting

if TYPE_CHECKING:
    from eval.engine.checkpoint import Checkpoint

WORDS = 100


def split(article: str) -> tuple[str, str]:
    """The first 100 words and the rest, each joined by single spaces."""
    words = article.split()
    return " ".join(words[:WORDS]), " ".join(words[WORDS:])


@dataclass(kw_only=True)
class CnnDmLm(Task):
    """Greedy, 512 new tokens; E and d as for CNN/DM."""

    EXIT_SHARES: ClassVar[tuple[float, ...]] = (8 / 32,)
    DRAFTS: ClassVar[tuple[int, ...]] = (12,)
    TABLE_METRICS: ClassVar[tuple[str, ...]] = ("rouge2", "rouge2_stem", "rouge2_paper")

    name: str = "cnn_dm_lm"
    source: str = "hf://abisee/cnn_dailymail"
    """Articles: a .jsonl (also .gz, .zst) or .parquet file, a folder or glob of them, or hf://org/name."""
    subset: str | None = "3.0.0"
    """hf:// only: which configuration."""
    split: str = "test"
    """hf:// only."""
    n_samples: int | None = 1000

    def samples(self, checkpoint: "Checkpoint") -> Chosen:
        """Articles of more than 100 words; the selection counts those that have no more."""
        place = SourceConfig(path=self.source, subset=self.subset, split=self.split)
        rows = list(read_rows(place, ["article"]))
        pairs = [(row, split(row.values["article"])) for row in rows]
        long = [(row, *pair) for row, pair in pairs if pair[1]]
        samples = []
        for i in chosen_indices(len(long), self):
            row, prompt, rest = long[i]
            id_ = str(row.values.get("id", row.where.rpartition("/")[2]))
            tokens = checkpoint.tokenizer.encode_prompt(prompt)
            samples.append(Sample(id=id_, prompt=prompt, tokens=tokens, reference=rest))
        limit_by(self, (s.reference for s in samples), checkpoint.tokenizer)
        return fitting(
            samples,
            self,
            checkpoint,
            "take fewer",
            Selection(source=self.source, n_available=len(long), n_too_short=len(rows) - len(long)),
        )

    def score(self, sample: Sample, text: str) -> dict[str, float]:
        """ROUGE in all variants."""
        assert sample.reference is not None
        return rouge(text, sample.reference)
