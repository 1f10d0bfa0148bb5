"""What the references of samples ask of `task.max_new_tokens`: room for the longest of them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

from conf.strict import ConfigError

if TYPE_CHECKING:
    from data.tokenizers.tokenizer import Tokenizer
    from eval.tasks.task import Sample, Selection, Task

LEAST_MARGIN = 8
"""Tokens that a model may write beyond the longest reference, at least; an eighth of it if that is more."""


def answer_tokens(tokenizer: "Tokenizer", reference: str) -> list[int]:
    """A reference as a model has to write it, with the end of text."""
    from data.tokenizers.long_text import continuation

    return [*continuation(tokenizer, reference), tokenizer.eos_id]


def limit_by(task: "Task", references: Iterable[str | None], tokenizer: "Tokenizer") -> None:
    """Fill in a `max_new_tokens` that is null: the tokens of the longest reference, and a margin.

    Raises ConfigError where there is no reference.
    """
    if task.max_new_tokens is not None:
        return
    longest = max((len(answer_tokens(tokenizer, r)) for r in references if r is not None), default=None)
    if longest is None:
        raise ConfigError(
            "task.max_new_tokens=null: no sample has a reference whose length could say it; give a number"
        )
    task.max_new_tokens = longest + max(LEAST_MARGIN, longest // 8)


def with_cut_references(
    selection: "Selection", samples: Sequence["Sample"], task: "Task", tokenizer: "Tokenizer"
) -> "Selection":
    """The selection with what the limit makes impossible: how many references are longer, and the best score left."""
    answers = [answer_tokens(tokenizer, s.reference) if s.reference is not None else [] for s in samples]
    n_cut = sum(len(answer) > task.limit for answer in answers)
    if not n_cut:
        return selection
    metric = task.TABLE_METRICS[0]
    best = [
        task.score(s, s.reference if len(answer) <= task.limit else tokenizer.decode(answer[: task.limit]))[metric]
        for s, answer in zip(samples, answers, strict=True)
        if s.reference is not None
    ]
    longest = max(map(len, answers))
    return replace(selection, n_cut_references=n_cut, longest_reference=longest, best_possible={metric: fmean(best)})
