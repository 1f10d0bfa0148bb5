"""Summaries of articles, as the released benchmark of LayerSkip prompts for them: CNN/DM and XSUM differ in names."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from conf.checks import at_least
from conf.hub import HUB
from conf.strict import ConfigError
from data.config import SourceConfig
from data.sources.rows import SourceRow, read_rows
from eval.tasks.references import limit_by
from eval.tasks.rouge import rouge
from eval.tasks.task import SECTION, Chosen, Sample, Selection, Task, chosen_indices, fitting, shortened

if TYPE_CHECKING:
    from data.tokenizers.tokenizer import Tokenizer
    from eval.engine.checkpoint import Checkpoint

# Shots are drawn from the first of their source's records: a stream cannot be drawn from as a whole.
SHOT_POOL = 1000


def zero_shot(article: str) -> str:
    """What asks for a summary."""
    return f"Article: {article}\nSummary:"


def shots_text(shots: Sequence[tuple[str, str]]) -> str:
    """(article, summary) pairs as examples; "" for none. Line ends in a summary are removed, as released."""
    lines = [f"{zero_shot(article)} {summary.replace(chr(10), '')}\n" for article, summary in shots]
    return "".join([*lines, "\n"]) if lines else ""


@dataclass(kw_only=True)
class Summaries(Task):
    """Greedy summaries, scored by ROUGE."""

    ARTICLE: ClassVar[str]
    SUMMARY: ClassVar[str]
    TABLE_METRICS: ClassVar[tuple[str, ...]] = ("rouge1", "rouge2", "rougeL", "rouge2_stem", "rouge2_paper")
    WHOLE_ANSWERS: ClassVar[bool] = True

    source: str = ""
    """Articles: a .jsonl (also .gz, .zst) or .parquet file, a folder or glob of them, or hf://org/name."""
    subset: str | None = None
    """hf:// only: which configuration."""
    split: str = "test"
    """hf:// only."""
    revision: str | None = None
    """hf:// only: a commit or branch."""
    n_shots: int = 0
    """Examples before each article, the same for all."""
    shot_source: str | None = None
    """Where the examples are drawn from: of the first 1,000 records; null: shot_split of an hf:// source."""
    shot_split: str = "train"
    """hf:// only."""
    truncate: bool = False
    """Cut an article that does not fit into the context from its end; the selection counts those that are cut."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, self, "n_shots", section=SECTION)
        if self.n_shots and self.shot_source is None and not self.source.startswith(HUB):
            raise ValueError(
                f"task.shot_source: missing; n_shots={self.n_shots} needs examples that are not among those scored:"
                " give another file, or task.n_shots=0"
            )

    def samples(self, checkpoint: "Checkpoint") -> Chosen:
        """Every chosen article with the shots before it."""
        shots = self._shots()
        before = shots_text([self._pair(row) for row in shots])
        rows = list(self._rows(self.source, self.split))
        indices, samples, n_cut = chosen_indices(len(rows), self), [], 0
        limit_by(self, (f" {self._pair(rows[i])[1]}" for i in indices), checkpoint.tokenizer)
        for i in indices:
            article, summary = self._pair(rows[i])
            sample = _encoded(checkpoint.tokenizer, _id(rows[i]), before, article, f" {summary}")
            if self.truncate:
                shorter = self._shortened(checkpoint, sample, before, article)
                n_cut += shorter is not sample
                sample = shorter
            samples.append(sample)
        remedy = "task.truncate=true cuts articles from their end, or take fewer shots or new tokens"
        selection = Selection(
            source=self.source,
            n_available=len(rows),
            n_truncated=n_cut,
            shots=[{"id": _id(row), "at": row.where, "begins": self._pair(row)[0][:80]} for row in shots],
        )
        return fitting(samples, self, checkpoint, remedy, selection)

    def score(self, sample: Sample, text: str) -> dict[str, float]:
        """ROUGE in all variants."""
        assert sample.reference is not None
        return rouge(text, sample.reference)

    def _rows(self, source: str, split: str) -> Any:
        place = SourceConfig(path=source, subset=self.subset, split=split, revision=self.revision)
        return read_rows(place, [self.ARTICLE, self.SUMMARY])

    def _pair(self, row: SourceRow) -> tuple[str, str]:
        return row.values[self.ARTICLE], row.values[self.SUMMARY]

    def _shots(self) -> list[SourceRow]:
        if not self.n_shots:
            return []
        pool = list(itertools.islice(self._rows(self.shot_source or self.source, self.shot_split), SHOT_POOL))
        if len(pool) < self.n_shots:
            raise ConfigError(f"task.n_shots={self.n_shots}: their source has {len(pool)} records only")
        drawn = np.random.default_rng(self.seed).choice(len(pool), self.n_shots, replace=False)
        return [pool[i] for i in drawn]

    def _shortened(self, checkpoint: "Checkpoint", sample: Sample, before: str, article: str) -> Sample:
        """The sample with as much of the article's beginning as fits; an impossible one as it was."""

        def cut(n: int) -> Sample:
            return _encoded(checkpoint.tokenizer, sample.id, before, article[:n], sample.reference or "")

        return shortened(sample, len(article), cut, checkpoint.stored.size.max_seq_len - self.limit)


def _encoded(tokenizer: "Tokenizer", id_: str, before: str, article: str, reference: str) -> Sample:
    prompt = before + zero_shot(article)
    return Sample(id=id_, prompt=prompt, tokens=tokenizer.encode_prompt(prompt), reference=reference)


def _id(row: SourceRow) -> str:
    """The data set's own, or where the record stands."""
    return str(row.values.get("id", row.where.rpartition("/")[2]))
