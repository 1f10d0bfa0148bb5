"""The speed of every (E, d) from a calibration: its rounds are replayed over the texts, and each costs its passes."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np

from eval.config import DraftPolicy
from eval.engine.policy import (
    MOST_DRAFTS,
    Autoregressive,
    ConfidenceStop,
    DynamicExit,
    Policy,
    SelfSpeculative,
)
from eval.measure.timing import PassTimes
from eval.tuning.calibration import Calibration
from models.speculation import replayed_rounds


class Predicted(NamedTuple):
    """One setting."""

    exit_layer: int
    num_speculations: int
    speedup: float
    """Over plain decoding, by the ratio of the sums over all texts."""
    acceptance_rate: float
    """Accepted share of the drafts."""
    tokens_per_round: float


def predictions(calibration: Calibration, n_layers: int) -> list[Predicted]:
    """Every exit with every number of drafts, the fastest first."""
    found = [_predicted(calibration, e, d) for e in range(1, n_layers) for d in range(1, MOST_DRAFTS + 1)]
    return sorted(found, key=lambda p: -p.speedup)


def candidates(predicted: Sequence[Predicted], n: int, drafted_by: Sequence[DraftPolicy]) -> list[Policy]:
    """Plain decoding and what to decode with beside it: the n best predicted, and the adaptive policies asked for."""
    best: list[Policy] = [SelfSpeculative(p.exit_layer, p.num_speculations) for p in predicted[:n]]
    if DraftPolicy.confidence in drafted_by:
        best.append(ConfidenceStop(predicted[0].exit_layer, MOST_DRAFTS))
    if DraftPolicy.dynamic in drafted_by:
        best.append(DynamicExit())
    return [Autoregressive(), *best]


def _predicted(calibration: Calibration, exit_layer: int, d: int) -> Predicted:
    times = passes_of(calibration.passes, exit_layer, d)
    plain = speculative = rounds = drafted = tokens = 0.0
    for text in calibration.texts:
        chances = text.chances[exit_layer]
        n, n_drafted, n_plain = replayed_rounds(chances, d)
        rounds, drafted, tokens = rounds + n, drafted + n_drafted, tokens + len(chances) - n_plain
        below_and_above = n * (times.last_draft + times.verify) + n_drafted * times.draft
        speculative += text.prefill + below_and_above + n_plain * times.autoregressive_token
        plain += text.prefill + len(chances) * times.autoregressive_token
    accepted = tokens - rounds
    return Predicted(
        exit_layer,
        d,
        plain / speculative,
        accepted / drafted if drafted else 0.0,
        tokens / rounds if rounds else 1.0,
    )


def passes_of(measured: Mapping[tuple[int, int], PassTimes], exit_layer: int, d: int) -> PassTimes:
    """The times of a setting, on straight lines between those that were measured.

    All blocks are alike, so that a pass takes as much longer as it has more of them.
    """
    exits = sorted({e for e, _ in measured})
    by_exit = [_between([(of, t) for (e, of), t in sorted(measured.items()) if e == at], d) for at in exits]
    found = _between(list(zip(exits, by_exit, strict=True)), exit_layer)
    token = fmean(t.autoregressive_token for t in measured.values())
    return found._replace(autoregressive_token=token)


def _between(points: Sequence[tuple[int, PassTimes]], at: int) -> PassTimes:
    places = [place for place, _ in points]
    columns = zip(*(times for _, times in points), strict=True)
    return PassTimes(*(float(np.interp(at, places, column)) for column in columns))
