"""Accepted and rejected drafts by what they are, where they stand and what the models thought of them."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from itertools import pairwise
from typing import TypeVar

from eval.drafts.classes import Piece, TokenClass
from eval.drafts.findings import Breakdowns, Confusion, DraftPositionPart, DraftsPart, TokenPair, Totals
from eval.drafts.judged import RoundCounts
from eval.drafts.sample import Draft, DraftedSample
from eval.results import bootstrap
from eval.results.bootstrap import Estimate

T = TypeVar("T", int, str)

NO_WORD = "no word"
RANKS = (1, 2, 3, 4, 11, 101)
PROBABILITIES = (0, 0.001, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
BITS = (0, 0.25, 0.5, 1, 2, 3, 4, 6, 8)
PLACES = (0, 16, 64, 256)
# So many of the most frequent pairs of a rejected draft and what the full model had instead.
PAIRS = 50


def breakdowns(samples: Sequence[DraftedSample]) -> Breakdowns:
    """A part for each value that occurs."""
    classes = [c.value for c in TokenClass]
    pieces = [*(p.value for p in Piece), NO_WORD]
    both = [f"{c}, {p}" for c in classes for p in pieces]
    deepest = max((d.position for s in samples for d in s.drafts), default=0)
    return Breakdowns(
        by_class=_parts(samples, classes, lambda d: d.draft_class),
        by_piece=_parts(samples, pieces, lambda d: d.piece or NO_WORD),
        by_class_and_piece=_parts(samples, both, lambda d: f"{d.draft_class}, {d.piece or NO_WORD}"),
        by_class_of_full=_parts(samples, classes, lambda d: d.full_class),
        by_position=_by_position(samples, deepest),
        by_place=_parts(samples, *_integers(PLACES, lambda d: d.at)),
        by_rank=_parts(samples, *_integers(RANKS, lambda d: d.rank)),
        by_full_probability=_parts(samples, *_reals(PROBABILITIES, 1, lambda d: d.full_probability)),
        by_confidence=_parts(samples, *_reals(PROBABILITIES, 1, lambda d: d.confidence)),
        by_entropy=_parts(samples, *_reals(BITS, None, lambda d: d.entropy)),
        by_rank_of_full=_parts(samples, *_integers(RANKS, lambda d: d.rank_of_full)),
    )


def totals(samples: Sequence[DraftedSample]) -> Totals:
    """What became of all drafts, and the two acceptances."""
    by_sample = [_sum(s.rounds) for s in samples]
    total = _sum(by_sample)
    return Totals(
        rounds=sum(len(s.rounds) for s in samples),
        drafted=total.drafted,
        accepted=total.accepted,
        rejected=total.rejected,
        after_rejection=total.after_rejection,
        after_end=total.after_end,
        acceptance_rate=_ratio((c.accepted, c.drafted) for c in by_sample),
        acceptance=_ratio((c.accepted, c.accepted + c.rejected) for c in by_sample),
        near_ties=sum(s.near_ties for s in samples),
        unexplained=sum(s.unexplained for s in samples),
    )


def confusion(samples: Sequence[DraftedSample]) -> list[Confusion]:
    """Rejected drafts by their class and that of the text's token, the most frequent first."""
    return [
        Confusion(draft_class=a, full_class=b, rejected=n, n_samples=n_samples)
        for (a, b), n, n_samples in _counted(samples, lambda d: (d.draft_class, d.full_class))
    ]


def pairs(samples: Sequence[DraftedSample], text: Callable[[int], str]) -> list[TokenPair]:
    """The most frequent rejected drafts with what the full model had instead."""
    return [
        TokenPair(draft=text(a), full=text(b), rejected=n, n_samples=n_samples)
        for (a, b), n, n_samples in _counted(samples, lambda d: (d.draft, d.full))[:PAIRS]
    ]


def _parts(
    samples: Sequence[DraftedSample], values: Sequence[str], value_of: Callable[[Draft], str]
) -> list[DraftsPart]:
    """A part for each of the values that some draft has."""
    found: dict[str, list[list[Draft]]] = {}
    for sample in samples:
        by_value: dict[str, list[Draft]] = {}
        for draft in sample.drafts:
            by_value.setdefault(value_of(draft), []).append(draft)
        for value, drafts in by_value.items():
            found.setdefault(value, []).append(drafts)
    judged = sum(len(s.drafts) for s in samples)
    rejected = sum(not d.accepted for s in samples for d in s.drafts)
    return [_part(value, found[value], judged, rejected) for value in values if value in found]


def _part(value: str, by_sample: Sequence[Sequence[Draft]], judged: int, rejected: int) -> DraftsPart:
    """The drafts with a value; samples without any are left out, also of the interval."""
    drafts = [d for sample in by_sample for d in sample]
    n_accepted = sum(d.accepted for d in drafts)
    n_rejected = len(drafts) - n_accepted
    acceptance = _ratio((sum(d.accepted for d in sample), len(sample)) for sample in by_sample)
    assert acceptance is not None
    return DraftsPart(
        value=value,
        judged=len(drafts),
        accepted=n_accepted,
        rejected=n_rejected,
        acceptance=acceptance,
        share_of_judged=len(drafts) / judged,
        share_of_rejections=n_rejected / rejected if rejected else None,
        lost=sum(d.lost for d in drafts),
        n_samples=len(by_sample),
    )


def _by_position(samples: Sequence[DraftedSample], deepest: int) -> list[DraftPositionPart]:
    """With how many rounds drafted so far, and the share of those whose draft there was accepted."""
    found = []
    for part in _parts(samples, [str(i) for i in range(1, deepest + 1)], lambda d: str(d.position)):
        drafted = sum(r.drafted >= int(part.value) for s in samples for r in s.rounds)
        share = part.accepted / drafted
        values = {f.name: getattr(part, f.name) for f in fields(part)}
        found.append(DraftPositionPart(**values, drafted=drafted, accepted_of_drafted=share))
    return found


def _integers(edges: Sequence[int], number: Callable[[Draft], int]) -> tuple[list[str], Callable[[Draft], str]]:
    """Names of the stretches that begin at each edge, and the stretch of a draft."""
    names = [str(a) if b == a + 1 else f"{a}-{b - 1}" for a, b in pairwise(edges)] + [f"{edges[-1]}+"]
    return names, lambda d: names[bisect_right(edges, number(d)) - 1]


def _reals(
    edges: Sequence[float], end: float | None, number: Callable[[Draft], float]
) -> tuple[list[str], Callable[[Draft], str]]:
    """Stretches of values; each holds its beginning, and the last one its end as well."""
    names = [f"{a:g}-{b:g}" for a, b in pairwise(edges)]
    names.append(f"{edges[-1]:g}+" if end is None else f"{edges[-1]:g}-{end:g}")
    return names, lambda d: names[bisect_right(edges, number(d)) - 1]


def _ratio(units: Iterable[tuple[int, int]]) -> Estimate | None:
    """Sum of the firsts by sum of the seconds, and its interval, over the units (samples) that have any; else None."""
    units = [(part, whole) for part, whole in units if whole]
    if not units:
        return None
    found = bootstrap.estimate(units, bootstrap.ratio_of_means)
    return found._replace(value=sum(a for a, _ in units) / sum(b for _, b in units))


def _sum(counts: Sequence[RoundCounts]) -> RoundCounts:
    return RoundCounts(*map(sum, zip(*counts, strict=True))) if counts else RoundCounts(0, 0, 0, 0)


def _counted(
    samples: Sequence[DraftedSample], key: Callable[[Draft], tuple[T, T]]
) -> list[tuple[tuple[T, T], int, int]]:
    """(key, times among rejected drafts, samples that have it), the most frequent first."""
    by_sample = [Counter(key(d) for d in sample.drafts if not d.accepted) for sample in samples]
    found = sum(by_sample, Counter[tuple[T, T]]())
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return [(k, n, sum(k in sample for sample in by_sample)) for k, n in ordered]
