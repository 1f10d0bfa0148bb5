"""From panels to a Matplotlib figure."""

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from conf.axes import exit_ticks, log_ticks
from eval.figure.panel import Axis, Drawn, Line, Panel
from eval.figure.style import COLUMN, PAGE, PRINT, Look, looks

IN_A_ROW = 3
HEIGHT = 2.1
"""Inches of a row of panels."""
MARKERS = 16
"""Markers on a line of many points, at most."""
TICKS_AN_INCH = 3.2
"""Exit layers that are written below an inch of a panel, at most."""
SIDEWAYS = 0.75
"""Share of the distance between exit layers that the points of all arms take, where they are not joined."""
MOST_POINTS = 12
"""Points with a note in a panel as wide as a column."""


def draw(drawn: Drawn) -> Figure:
    """The figure, as wide as a column for one panel and as a page for several."""
    panels = drawn.panels
    n_columns = 2 if len(panels) == 4 else min(IN_A_ROW, len(panels))
    n_rows = -(-len(panels) // n_columns)
    narrow = n_columns == 1 and sum(len(line.notes) for line in panels[0].lines) <= MOST_POINTS
    width = COLUMN if narrow else PAGE
    arms = list(dict.fromkeys(line.arm for panel in panels for line in panel.lines))
    look = looks(arms)
    with matplotlib.rc_context(dict(PRINT)):
        figure = Figure(figsize=(width, HEIGHT * n_rows + 0.75), layout="constrained")
        axes = figure.subplots(n_rows, n_columns, squeeze=False)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        for axis, panel in zip(axes.flat, panels, strict=False):
            _panel(axis, panel, arms, look, most_ticks=int(TICKS_AN_INCH * width / n_columns))
        _legend(figure, drawn, arms, axes, width)
        characters = int(width * 21)
        figure.supxlabel("\n".join(textwrap.wrap(drawn.caption, characters)), fontsize=6.5, color="0.25")
    return figure


def _panel(axis: Any, panel: Panel, arms: Sequence[str], look: dict[str, Look], most_ticks: int) -> None:
    for line in panel.lines:
        at = arms.index(line.arm)
        if panel.joined:
            _joined(axis, line, look[line.arm], at)
        else:
            _points(axis, line, look[line.arm], SIDEWAYS * ((at + 0.5) / len(arms) - 0.5))
    if panel.reference is not None:
        axis.axhline(panel.reference, color="0.4", linewidth=0.8, zorder=1)
    axis.set(title=panel.title, ylabel=panel.label)
    if panel.axis is Axis.exits:
        exit_ticks(axis, sorted({int(x) for line in panel.lines for x in line.x}), most=most_ticks)
    else:
        axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
        axis.set_xlabel(panel.axis.value)
    if panel.log:
        log_ticks(axis, [value for line in panel.lines for band in line.bands for value in band[:3]])


def _joined(axis: Any, line: Line, look: Look, at: int) -> None:
    every = -(-len(line.x) // MARKERS)
    axis.plot(
        line.x,
        [band.mean for band in line.bands],
        color=look.colour,
        linestyle=look.dash,
        marker=look.marker,
        markevery=(at % every if len(line.x) > every else 0, every),
        label=line.arm,
        zorder=3,
    )
    if line.n > 1:
        low, high = [band.low for band in line.bands], [band.high for band in line.bands]
        axis.fill_between(line.x, low, high, color=look.colour, alpha=0.18, linewidth=0, zorder=2)


def _points(axis: Any, line: Line, look: Look, aside: float) -> None:
    xs, means = [x + aside for x in line.x], [band.mean for band in line.bands]
    below = [max(0.0, band.mean - band.low) for band in line.bands]
    above = [max(0.0, band.high - band.mean) for band in line.bands]
    axis.errorbar(
        xs,
        means,
        [below, above],
        color=look.colour,
        linestyle="none",
        marker=look.marker,
        elinewidth=0.9,
        capsize=1.8,
        label=line.arm,
        zorder=3,
    )
    for x, band, note in zip(xs, line.bands, line.notes, strict=False):
        axis.annotate(
            note,
            (x, max(band.mean, band.high)),
            (0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=6,
            color=look.colour,
        )
    if line.notes:
        axis.margins(y=0.14)


def _legend(figure: Figure, drawn: Drawn, arms: Sequence[str], axes: Any, width: float) -> None:
    """One for all panels, with the number of seeds where arms differ in it."""
    seeds = {arm: max(line.n for panel in drawn.panels for line in panel.lines if line.arm == arm) for arm in arms}
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    names = [arm if len(set(seeds.values())) == 1 else f"{arm} (n = {seeds[arm]})" for arm in arms]
    names = [textwrap.fill(name, int(width * 13)) for name in names]
    longest = max(len(part) for name in names for part in name.split("\n"))
    n_columns = max(1, min(len(arms), int(width * 15 / (longest + 8))))
    figure.legend(
        [handles[arm] for arm in arms],
        names,
        loc="outside upper center",
        ncols=n_columns,
        handlelength=2.8,
        frameon=False,
    )


def count(value: float) -> str:
    """A number of tokens: 950, 16k, 2.5M, 26B."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:g}"
