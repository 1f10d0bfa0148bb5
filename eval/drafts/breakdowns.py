"""Accepted and rejected drafts by what they are, where they stand and what the models thought of them."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from eval.drafts.classes import Piece, TokenClass
from eval.drafts.judged import Counts
from eval.drafts.sample import Draft, DraftedSample
from eval.results import bootstrap

Row = dict[str, Any]
"""What rejections.json lists; its keys are described in docs/rejections.md."""

NO_WORD = "no word"
RANKS = (1, 2, 3, 4, 11, 101)
PROBABILITIES = (0, 0.001, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
BITS = (0, 0.25, 0.5, 1, 2, 3, 4, 6, 8)
PLACES = (0, 16, 64, 256)
# So many of the most frequent pairs of a rejected draft and what the full model had instead.
PAIRS = 50


def breakdowns(samples: Sequence[DraftedSample]) -> dict[str, list[Row]]:
    """A row for each value that occurs, by name of the breakdown."""
    classes = [c.value for c in TokenClass]
    pieces = [*(p.value for p in Piece), NO_WORD]
    both = [f"{c}, {p}" for c in classes for p in pieces]
    deepest = max((d.position for s in samples for d in s.drafts), default=0)
    return {
        "by_class": _rows(samples, classes, lambda d: d.draft_class),
        "by_piece": _rows(samples, pieces, lambda d: d.piece or NO_WORD),
        "by_class_and_piece": _rows(samples, both, lambda d: f"{d.draft_class}, {d.piece or NO_WORD}"),
        "by_class_of_full": _rows(samples, classes, lambda d: d.full_class),
        "by_position": _by_position(samples, deepest),
        "by_place": _rows(samples, *_integers(PLACES, lambda d: d.at)),
        "by_rank": _rows(samples, *_integers(RANKS, lambda d: d.rank)),
        "by_full_probability": _rows(samples, *_reals(PROBABILITIES, 1, lambda d: d.full_probability)),
        "by_confidence": _rows(samples, *_reals(PROBABILITIES, 1, lambda d: d.confidence)),
        "by_entropy": _rows(samples, *_reals(BITS, None, lambda d: d.entropy)),
        "by_rank_of_full": _rows(samples, *_integers(RANKS, lambda d: d.rank_of_full)),
    }


def overall(samples: Sequence[DraftedSample]) -> Row:
    """What became of all drafts, and the two acceptances."""
    by_sample = [_sum(s.rounds) for s in samples]
    total = _sum(by_sample)
    return {
        "rounds": sum(len(s.rounds) for s in samples),
        "drafted": total.drafted,
        "accepted": total.accepted,
        "rejected": total.rejected,
        "after_rejection": total.after_rejection,
        "after_end": total.after_end,
        **_ratio("acceptance_rate", ((c.accepted, c.drafted) for c in by_sample)),
        **_ratio("acceptance", ((c.accepted, c.accepted + c.rejected) for c in by_sample)),
        "near_ties": sum(s.near_ties for s in samples),
        "unexplained": sum(s.unexplained for s in samples),
    }


def confusion(samples: Sequence[DraftedSample]) -> list[Row]:
    """Rejected drafts by their class and that of the text's token, the most frequent first."""
    found = _counted(samples, lambda d: (d.draft_class, d.full_class))
    return [{"draft_class": a, "full_class": b, **row} for (a, b), row in found]


def pairs(samples: Sequence[DraftedSample], text: Callable[[int], str]) -> list[Row]:
    """The most frequent rejected drafts with what the full model had instead."""
    found = _counted(samples, lambda d: (d.draft, d.full))[:PAIRS]
    return [{"draft": text(a), "full": text(b), **row} for (a, b), row in found]


def _rows(samples: Sequence[DraftedSample], values: Sequence[str], value_of: Callable[[Draft], str]) -> list[Row]:
    """A row for each of the values that some draft has."""
    found: dict[str, list[list[Draft]]] = {}
    for sample in samples:
        own: dict[str, list[Draft]] = {}
        for draft in sample.drafts:
            own.setdefault(value_of(draft), []).append(draft)
        for value, drafts in own.items():
            found.setdefault(value, []).append(drafts)
    judged = sum(len(s.drafts) for s in samples)
    rejected = sum(not d.accepted for s in samples for d in s.drafts)
    return [_row(value, found[value], judged, rejected) for value in values if value in found]


def _row(value: str, by_sample: Sequence[Sequence[Draft]], judged: int, rejected: int) -> Row:
    """Of the drafts with a value; samples without any are left out, also of the interval."""
    drafts = [d for own in by_sample for d in own]
    n_accepted = sum(d.accepted for d in drafts)
    n_rejected = len(drafts) - n_accepted
    return {
        "value": value,
        "judged": len(drafts),
        "accepted": n_accepted,
        "rejected": n_rejected,
        **_ratio("acceptance", ((sum(d.accepted for d in own), len(own)) for own in by_sample)),
        "share_of_judged": len(drafts) / judged,
        "share_of_rejections": n_rejected / rejected if rejected else None,
        "lost": sum(d.lost for d in drafts),
        "n_samples": len(by_sample),
    }


def _by_position(samples: Sequence[DraftedSample], deepest: int) -> list[Row]:
    """With how many rounds drafted so far, and the share of those whose draft there was accepted."""
    rows = _rows(samples, [str(i) for i in range(1, deepest + 1)], lambda d: str(d.position))
    for row in rows:
        drafted = sum(r.drafted >= int(row["value"]) for s in samples for r in s.rounds)
        row |= {"drafted": drafted, "accepted_of_drafted": row["accepted"] / drafted}
    return rows


def _integers(edges: Sequence[int], number: Callable[[Draft], int]) -> tuple[list[str], Callable[[Draft], str]]:
    """Names of the stretches that begin at each edge, and the stretch of a draft."""
    names = [str(a) if b == a + 1 else f"{a}-{b - 1}" for a, b in pairwise(edges)] + [f"{edges[-1]}+"]
    return names, lambda d: names[bisect_right(edges, number(d)) - 1]


def _reals(
    edges: Sequence[float], end: float | None, number: Callable[[Draft], float]
) -> tuple[list[str], Callable[[Draft], str]]:
    """The same; each stretch holds its beginning, and the last one its end as well."""
    names = [f"{a:g}-{b:g}" for a, b in pairwise(edges)]
    names.append(f"{edges[-1]:g}+" if end is None else f"{edges[-1]:g}-{end:g}")
    return names, lambda d: names[bisect_right(edges, number(d)) - 1]


def _ratio(name: str, units: Iterable[tuple[int, int]]) -> Mapping[str, float | None]:
    """Sum of the firsts by sum of the seconds, and its interval, over the units (samples) that have any; else None."""
    units = [(part, whole) for part, whole in units if whole]
    low, high = f"{name}_low", f"{name}_high"
    if not units:
        return dict.fromkeys((name, low, high))
    found = bootstrap.estimate(units, bootstrap.ratio_of_means)
    return {name: sum(a for a, _ in units) / sum(b for _, b in units), low: found.low, high: found.high}


def _sum(counts: Sequence[Counts]) -> Counts:
    return Counts(*map(sum, zip(*counts, strict=True))) if counts else Counts(0, 0, 0, 0)


def _counted(samples: Sequence[DraftedSample], key: Callable[[Draft], tuple[Any, Any]]) -> list[tuple[Any, Row]]:
    """How often each key occurs among rejected drafts, and in how many samples; the most frequent first."""
    by_sample = [Counter(key(d) for d in sample.drafts if not d.accepted) for sample in samples]
    found = sum(by_sample, Counter[Any]())
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return [(k, {"rejected": n, "n_samples": sum(k in own for own in by_sample)}) for k, n in ordered]
