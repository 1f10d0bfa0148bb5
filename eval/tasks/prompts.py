"""Prompts of your own, one JSON object a line: {"prompt": "...", "reference": "...", "id": "..."}."""

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from data.config import DataError, SourceConfig
from data.sources.rows import read_rows
from eval.engine.checkpoint import Checkpoint
from eval.tasks.rouge import rouge
from eval.tasks.task import Chosen, Sample, Task, check_lengths, chosen_indices


@dataclass(kw_only=True)
class Prompts(Task):
    """Greedy; `reference` and `id` may be left out. ROUGE where there is a reference."""

    SHOWN: ClassVar[tuple[str, ...]] = ("rouge2", "rouge2_stem", "rouge2_paper")

    name: str = "prompts"
    source: str = MISSING
    """A .jsonl (also .gz, .zst), .tsv or .parquet file with a field `prompt`, or a folder or glob of them."""
    max_new_tokens: int = 128

    def samples(self, checkpoint: Checkpoint) -> Chosen:
        """Each prompt as it stands."""
        rows = list(read_rows(SourceConfig(path=self.source), ["prompt"]))
        samples, seen = [], dict[str, str]()
        for i in chosen_indices(len(rows), self):
            row, where = rows[i].values, rows[i].where
            id_ = str(row.get("id", where.rpartition("/")[2]))
            if id_ in seen:
                raise DataError(f"{where}: the id '{id_}' is also that of {seen[id_]}")
            seen[id_] = where
            reference = row.get("reference")
            if reference is not None and not isinstance(reference, str):
                raise DataError(f"{where}: no text in field 'reference'; leave it out or give text")
            if not row["prompt"]:
                raise DataError(f"{where}: the prompt is empty")
            tokens = checkpoint.tokenizer.encode_prompt(row["prompt"])
            samples.append(Sample(id=id_, prompt=row["prompt"], tokens=tokens, reference=reference))
        check_lengths(samples, self, checkpoint.stored.size.max_seq_len, "take shorter prompts or fewer new tokens")
        return Chosen(samples, {"source": self.source, "n_available": len(rows)})

    def score(self, sample: Sample, text: str) -> dict[str, float]:
        """ROUGE in all variants, against a reference."""
        return {} if sample.reference is None else rouge(text, sample.reference)
