"""Prompts of your own, one JSON object a line: {"prompt": "...", "reference": "...", "id": "..."}, or other fields."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from omegaconf import MISSING

from data.config import DataError, SourceConfig
from data.sources.rows import read_rows
from eval.prompts.text import first_turn
from eval.tasks.references import limit_by
from eval.tasks.rouge import rouge
from eval.tasks.task import Chosen, Sample, Selection, Task, chosen_indices, fitting, shortened

if TYPE_CHECKING:
    from eval.engine.checkpoint import Checkpoint


@dataclass(kw_only=True)
class Prompts(Task):
    """Greedy; `reference` and `id` may be left out. ROUGE where there is a reference."""

    TABLE_METRICS: ClassVar[tuple[str, ...]] = ("rouge2", "rouge2_stem", "rouge2_paper")
    WHOLE_ANSWERS: ClassVar[bool] = True

    name: str = "prompts"
    source: str = MISSING
    """A .jsonl (also .gz, .zst), .tsv or .parquet file, or a folder or glob of them."""
    field: str = "prompt"
    """The field with the prompt: a text, or a list of turns, of which the first is asked."""
    reference_field: str = "reference"
    """The field with a good continuation, where a record has it."""
    truncate: bool = False
    """Cut a prompt that does not fit into the context from its beginning; the selection counts those that are cut."""
    max_new_tokens: int | None = 128

    def samples(self, checkpoint: "Checkpoint") -> Chosen:
        """Each prompt as it stands."""
        rows = list(read_rows(SourceConfig(path=self.source), []))
        samples, seen, n_cut, indices = [], dict[str, str](), 0, chosen_indices(len(rows), self)
        references = [rows[i].values.get(self.reference_field) for i in indices]
        limit_by(self, (r for r in references if isinstance(r, str)), checkpoint.tokenizer)
        for i in indices:
            row, where = rows[i].values, rows[i].where
            id_ = str(row.get("id", where.rpartition("/")[2]))
            if id_ in seen:
                raise DataError(f"{where}: the id '{id_}' is also that of {seen[id_]}")
            seen[id_] = where
            reference = row.get(self.reference_field)
            if reference is not None and not isinstance(reference, str):
                raise DataError(f"{where}: no text in field '{self.reference_field}'; leave it out or give text")
            sample = _sample(checkpoint, id_, first_turn(row, self.field, where, "task.field"), reference)
            if self.truncate:
                shorter = self._shortened(checkpoint, sample)
                n_cut += shorter is not sample
                sample = shorter
            samples.append(sample)
        selection = Selection(source=self.source, n_available=len(rows), n_truncated=n_cut or None)
        remedy = "task.truncate=true cuts prompts from their beginning, or take fewer new tokens"
        return fitting(samples, self, checkpoint, remedy, selection)

    def _shortened(self, checkpoint: "Checkpoint", sample: Sample) -> Sample:
        """The sample with as much of the end of its prompt as fits."""

        def cut(n: int) -> Sample:
            return _sample(checkpoint, sample.id, sample.prompt[-n:], sample.reference)

        return shortened(sample, len(sample.prompt), cut, checkpoint.stored.size.max_seq_len - self.limit)

    def score(self, sample: Sample, text: str) -> dict[str, float]:
        """ROUGE in all variants, against a reference."""
        return {} if sample.reference is None else rouge(text, sample.reference)


def _sample(checkpoint: "Checkpoint", id_: str, prompt: str, reference: str | None) -> Sample:
    return Sample(id=id_, prompt=prompt, tokens=checkpoint.tokenizer.encode_prompt(prompt), reference=reference)
