"""Figures of a sweep: heat maps over E and d, and quality against speed."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from data.files import write_whole
from eval.config import Mode
from eval.results.sweep_config import AGREEMENT
from eval.results.sweep_findings import SweepRow, facts_lines

# cividis reads the same with and without colours; the others are Okabe and Ito's.
COLOURS = "cividis"
BLUE, ORANGE = "#0072B2", "#D55E00"
PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6}
LABELS = {AGREEMENT: "share of autoregressive decoding's text before the first difference"}


def save_png(figure: Figure, path: Path) -> Path:
    """Write a figure; returns the path. An older one is replaced."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    write_whole(path, content.getvalue())
    return path


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
    for axis, (title, numbers, digits, least, most) in zip(axes, maps, strict=True):
        values = np.full((len(exits), len(drafts)), np.nan)
        for place, number in zip(places, numbers, strict=True):
            values[place] = np.nan if number is None else number
        image = axis.imshow(values, cmap=COLOURS, aspect="auto", vmin=least, vmax=most)
        axis.set(title=title, xlabel="tokens drafted per round, d", ylabel="exit layer, E")
        axis.set_xticks(range(len(drafts)), list(map(str, drafts)))
        axis.set_yticks(range(len(exits)), list(map(str, exits)))
        _numbers(axis, values, image.norm, digits)
        for row, (y, x) in zip(drafting, places, strict=True):
            if row.best_of_exit:
                _frame(axis, x, y)
        figure.colorbar(image, ax=axis)
    figure.supxlabel("\n".join(["framed: the fastest d of each E", *facts_lines(rows[0])]), fontsize="small")
    return figure


def _numbers(axis: Axes, values: np.ndarray, norm: Normalize, digits: str) -> None:
    for (i, j), value in np.ndenumerate(values):
        red, green, blue, _ = colormaps[COLOURS](norm(value)) if np.isfinite(value) else (1, 1, 1, 1)
        ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
        text = format(value, digits) if np.isfinite(value) else "-"
        axis.text(j, i, text, ha="center", va="center", color=ink, fontsize="small")


def _frame(axis: Axes, x: int, y: int) -> None:
    frame = Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, fill=False, edgecolor="white", linewidth=1.6)
    frame.set_path_effects([withStroke(linewidth=3.6, foreground="black")])
    axis.add_patch(frame)


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
