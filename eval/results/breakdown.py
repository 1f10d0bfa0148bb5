"""A setting's numbers by group of samples, by length of the prompt, and by position in the output."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean, median

from eval.measure.records import Record
from eval.results.row import GroupPart, LengthPart, PositionPart
from eval.tasks.task import Sample, Task

PROMPT_TOKENS = (0, 128, 256, 512, 1024, 2048, 4096)
POSITIONS = (0, 16, 64, 256)


def by_group(task: Task, samples: Mapping[str, Sample], records: Sequence[Record]) -> list[GroupPart]:
    """Metrics of each group; none of a task without groups."""
    parts = []
    for group in sorted({r.group for r in records} - {""}):
        first = [r for r in records if r.group == group and r.repeat == 0]
        parts.append(GroupPart(group=group, n_samples=len(first), metrics=_metrics(task, samples, first)))
    return parts


def by_prompt_length(
    task: Task, samples: Mapping[str, Sample], records: Sequence[Record], autoregressive: Sequence[Record]
) -> list[LengthPart]:
    """Metrics and speed of the samples whose prompts have so many tokens; lengths that none has are left out."""
    parts = []
    for name, holds in _buckets(PROMPT_TOKENS):
        pairs = [(r, p) for r, p in zip(records, autoregressive, strict=True) if holds(r.prompt_tokens)]
        if pairs:
            rounds = [x for r, _ in pairs for x in r.decoding_rounds]
            first = [r for r, _ in pairs if r.repeat == 0]
            parts.append(
                LengthPart(
                    prompt_tokens=name,
                    n_samples=len(first),
                    metrics=_metrics(task, samples, first),
                    ms_per_token=1e3 * median(r.seconds_per_token for r, _ in pairs),
                    speedup=median(p.seconds_per_token / r.seconds_per_token for r, p in pairs),
                    acceptance_rate=_share(sum(a for _, a in rounds), sum(d for d, _ in rounds)),
                )
            )
    return parts


def by_position(records: Sequence[Record], autoregressive: Sequence[Record]) -> list[PositionPart]:
    """Speed and acceptance at each stretch of the output, over all samples.

    The prefill's round is left out, and its token. A token takes its share of its round's time.
    """
    parts = []
    for name, holds in _buckets(POSITIONS):
        n, seconds, drafted, accepted = _stretch(records, holds)
        n_autoregressive, autoregressive_seconds, _, _ = _stretch(autoregressive, holds)
        if n:
            parts.append(
                PositionPart(
                    position=name,
                    n_tokens=n,
                    ms_per_token=1e3 * seconds / n,
                    speedup=autoregressive_seconds / n_autoregressive / (seconds / n) if n_autoregressive else None,
                    acceptance_rate=_share(accepted, drafted),
                )
            )
    return parts


def _stretch(records: Sequence[Record], holds: Callable[[int], bool]) -> tuple[int, float, int, int]:
    """(tokens, seconds, drafted, accepted) at the positions that `holds` is true of."""
    n = drafted = accepted = 0
    seconds = 0.0
    for record in records:
        rounds = zip(record.emitted, record.drafted, record.accepted, record.round_seconds, strict=True)
        start = 0
        for i, (n_emitted, n_drafted, n_accepted, took) in enumerate(rounds):
            if i:
                inside = sum(map(holds, range(start, start + n_emitted)))
                n += inside
                seconds += took * inside / n_emitted
                drafted += sum(map(holds, range(start, start + n_drafted)))
                accepted += sum(map(holds, range(start, start + n_accepted)))
            start += n_emitted
    return n, seconds, drafted, accepted


def _metrics(task: Task, samples: Mapping[str, Sample], records: Sequence[Record]) -> dict[str, float]:
    units = task.units([(samples[r.id], r.scores) for r in records])
    return {name: fmean(values) for name, values in units.items()}


def _buckets(edges: Sequence[int]) -> list[tuple[str, Callable[[int], bool]]]:
    names = [f"{low}-{high - 1}" for low, high in pairwise(edges)]
    ranges = [range(low, high) for low, high in pairwise([*edges, 1 << 40])]
    return [(name, span.__contains__) for name, span in zip([*names, f"{edges[-1]}+"], ranges, strict=True)]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
