"""Figures of a sweep: heat maps over E and d, and quality against speed."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.config import Mode
from eval.results.heat_map import heat_map
from eval.results.sweep_config import AGREEMENT
from eval.results.sweep_findings import SweepRow, facts_lines

# Okabe and Ito's colours.
BLUE, ORANGE = "#0072B2", "#D55E00"
PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6}
LABELS = {AGREEMENT: "share of autoregressive decoding's text before the first difference"}


def heat_maps(rows: Sequence[SweepRow]) -> Figure:
    """Speed-up and acceptance, E downwards, d to the right; the best d of each E is framed."""
    drafting = [row for row in rows if row.mode == Mode.self_speculative]
    exits = sorted({row.setting.exit_layer for row in drafting})
    drafts = sorted({row.setting.num_speculations for row in drafting})
    width, height = 1.5 + 0.62 * len(drafts), 1.6 + 0.4 * len(exits)
    figure = Figure(figsize=(max(10.0, 2 * width), max(3.2, height)), layout="constrained")
    axes = figure.subplots(1, 2)
    places = [(exits.index(row.setting.exit_layer), drafts.index(row.setting.num_speculations)) for row in drafting]
    speedups = [row.speed.speedup.value for row in drafting]
    rates = [row.drafts.acceptance_rate for row in drafting]
    maps: list[tuple[str, Sequence[float | None], str, float | None, float | None]] = [
        ("Speed-up over autoregressive decoding", speedups, ".2f", None, None),
        ("Accepted share of the drafts", rates, ".0%", 0.0, 1.0),
    ]
    best = [place for row, place in zip(drafting, places, strict=True) if row.best_of_exit]
    for axis, (title, numbers, digits, least, most) in zip(axes, maps, strict=True):
        values = np.full((len(exits), len(drafts)), np.nan)
        for place, number in zip(places, numbers, strict=True):
            values[place] = np.nan if number is None else number
        heat_map(axis, values, exits, drafts, title=title, digits=digits, limits=(least, most), framed=best)
    figure.supxlabel("\n".join(["framed: the fastest d of each E", *facts_lines(rows[0])]), fontsize="small")
    return figure


def front(rows: Sequence[SweepRow], quality: str) -> Figure:
    """Quality against speed-up of autoregressive decoding, early exit, and self-speculation at the best d of each E."""
    figure = Figure(figsize=(9.5, 6), layout="constrained")
    axis = figure.subplots()
    autoregressive = next(row for row in rows if row.mode == Mode.autoregressive)
    early = [row for row in rows if row.mode == Mode.early_exit]
    drafting = [row for row in rows if row.best_of_exit]
    axis.axhline(autoregressive.quality(quality).value, color="grey", linewidth=0.8, linestyle=":")
    for series, marker, colour, label in (
        (early, "o", ORANGE, "early exit"),
        (drafting, "^", BLUE, "self-speculation, best d: autoregressive quality by construction"),
        ([autoregressive], "s", "black", "autoregressive decoding"),
    ):
        _points(axis, series, quality, marker, colour, label)
    on_front = sorted(_point(row, quality) for row in rows if row.on_front)
    axis.plot(
        *zip(*on_front, strict=True), color="black", linewidth=0.9, drawstyle="steps-pre", zorder=1, label="front"
    )
    lowest, highest = axis.get_ylim()
    axis.set_yticks([tick for tick in axis.get_yticks() if lowest <= tick <= highest])
    axis.set_ylim(lowest, highest + 0.28 * (highest - lowest))  # room for names
    _labels_above(axis, [autoregressive, *drafting], quality)
    for row in early:
        axis.annotate(
            row.setting.numbers or row.setting.label,
            _point(row, quality),
            (7, 4),
            textcoords="offset points",
            fontsize="small",
            bbox=PAPER,
        )
    axis.set(xlabel="speed-up over autoregressive decoding (median of pairs)", ylabel=LABELS.get(quality, quality))
    axis.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2, fontsize="small")
    figure.supxlabel(
        "\n".join(["filled: on the front; bars: 95 % intervals of quality", *facts_lines(rows[0])]), fontsize="small"
    )
    return figure


def _point(row: SweepRow, quality: str) -> tuple[float, float]:
    return row.speed.speedup.value, row.quality(quality).value


def _points(axis: Axes, series: Sequence[SweepRow], quality: str, marker: str, colour: str, label: str) -> None:
    for row in series:
        value, low, high = row.quality(quality)
        bars = [[max(0.0, value - low)], [max(0.0, high - value)]]
        axis.errorbar(
            row.speed.speedup.value, value, bars, fmt="none", ecolor=colour, elinewidth=0.7, alpha=0.6, zorder=2
        )
    faces = [colour if row.on_front else "white" for row in series]
    axis.scatter(
        [row.speed.speedup.value for row in series],
        [row.quality(quality).value for row in series],
        marker=marker,
        s=60,
        c=faces,
        edgecolors=colour,
        linewidths=1.5,
        zorder=3,
        label=label,
    )


def _labels_above(axis: Axes, series: Sequence[SweepRow], quality: str) -> None:
    """The names of points at one height, upright on a line above all, moved apart."""
    left, right = axis.get_xlim()
    gap, at = 0.028 * (right - left), left - (right - left)
    for row in sorted(series, key=lambda row: row.speed.speedup.value):
        at = max(row.speed.speedup.value, at + gap)
        axis.annotate(
            row.setting.numbers or row.setting.label,
            _point(row, quality),
            (at, 0.86),
            textcoords=("data", "axes fraction"),
            rotation=90,
            ha="center",
            va="bottom",
            fontsize="small",
            arrowprops={
                "arrowstyle": "-",
                "color": "grey",
                "linewidth": 0.5,
                "shrinkA": 0,
                "shrinkB": 4,
                "relpos": (0.5, 0),
            },
        )
