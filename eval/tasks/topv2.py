"""TOPv2: the parse of an utterance, by exact match (paper, Tables 6, 7 and 11).

The prompt is the one that training reads (data/sources/topv2.py), the answer the first line of what follows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from omegaconf import MISSING

from conf.strict import ConfigError
from data.config import DataError, SourceConfig
from data.sources.documents import TSV_FIELDS
from data.sources.rows import SourceRow, read_rows
from data.sources.topv2 import Node, Rendering, completion, from_json, parse, prompt
from eval.tasks.references import limit_by
from eval.tasks.task import Chosen, Sample, Selection, Task, chosen_indices, fitting

if TYPE_CHECKING:
    from eval.engine.checkpoint import Checkpoint


@dataclass(kw_only=True)
class TopV2(Task):
    """Greedy, with room for the longest answer; the paper's 1.5B leaves after 18, 12 or 6 of 24 layers and drafts 8."""

    EXIT_SHARES: ClassVar[tuple[float, ...]] = (6 / 24, 12 / 24, 18 / 24)
    DRAFTS: ClassVar[tuple[int, ...]] = (8,)
    TABLE_METRICS: ClassVar[tuple[str, ...]] = ("exact_match", "malformed")
    WHOLE_ANSWERS: ClassVar[bool] = True

    name: str = "topv2"
    source: str = MISSING
    """The folder with the published {domain}_{train,eval,test}.tsv."""
    split: str = "test"
    """test, eval or train."""
    domains: list[str] = field(default_factory=list)
    """Which; empty: all that are there."""
    rendering: Rendering = Rendering.parse
    """What the model was trained to write: parse (data=topv2) or json (data=topv2_json)."""
    n_samples: int | None = 1000
    max_new_tokens: int | None = None

    def samples(self, checkpoint: "Checkpoint") -> Chosen:
        """Utterances; the domain is the group."""
        rows = list(self._rows())
        samples = []
        for i in chosen_indices(len(rows), self):
            domain, utterance, published = (rows[i].values[f] for f in TSV_FIELDS)
            try:
                parse(published)
            except ValueError as error:
                raise DataError(f"{rows[i].where}: not a parse ({error})") from None
            text = prompt(utterance)
            samples.append(
                Sample(
                    id=rows[i].where.rpartition("/")[2],
                    prompt=text,
                    tokens=checkpoint.tokenizer.encode_prompt(text),
                    reference=completion(published, self.rendering),
                    group=domain,
                )
            )
        limit_by(self, (s.reference for s in samples), checkpoint.tokenizer)
        return fitting(
            samples,
            self,
            checkpoint,
            "take fewer",
            Selection(source=self.source, n_available=len(rows)),
        )

    def score(self, sample: Sample, text: str) -> dict[str, float]:
        """Whether the parse is the annotated one (white space between tokens is free), and whether it is no parse."""
        assert sample.reference is not None
        answer = self.parsed(text.strip().partition("\n")[0])
        return {
            "exact_match": float(answer == self.parsed(sample.reference)),
            "malformed": float(answer is None),
        }

    def parsed(self, text: str) -> Node | None:
        """The tree of a text, None for a malformed one."""
        try:
            return from_json(text) if self.rendering is Rendering.json else parse(text)
        except ValueError:
            return None

    def _rows(self) -> Iterator[SourceRow]:
        folder = Path(self.source).expanduser()
        there = {f.name.split("_")[0]: f for f in sorted(folder.glob(f"*_{self.split}.tsv*"))}
        if not there:
            raise ConfigError(f"task.source={self.source}: no {{domain}}_{self.split}.tsv there; give TOPv2's folder")
        if unknown := [d for d in self.domains if d not in there]:
            raise ConfigError(f"task.domains: no {unknown[0]} in {folder}; there are {', '.join(there)}")
        for domain in self.domains or there:
            yield from read_rows(SourceConfig(path=str(there[domain])), TSV_FIELDS)
