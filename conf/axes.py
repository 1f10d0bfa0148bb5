"""Axes of pictures by exit layer, for training and evaluation alike."""

from collections.abc import Sequence
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

# Values within the first ratio are read off evenly spaced ticks, within the second off 1, 1.5, 2, 3, 4, 5, 7, 10, ...,
# others off 1, 2, 5, 10, ..., and wide ones off decades.
EVEN = 3.0
NARROW = 10.0
WIDE = 1e4
MOST_TICKS = 16


def exit_ticks(axis: Any, exits: Sequence[int], most: int = MOST_TICKS) -> None:
    """Ticks of the horizontal axis at exit layers alone, the first and the last among them, about `most` of them."""
    step = -(-len(exits) // most)
    ticks = list(exits[::-1][::step])[::-1]
    axis.set_xticks(ticks if exits[0] in ticks or step == 1 else [exits[0], *ticks[1:]])
    axis.set_xlabel("exit layer")


def log_ticks(axis: Any, values: Sequence[float]) -> None:
    """A logarithmic vertical axis for these positive values, with ticks in plain numbers wherever they lie."""
    axis.set_yscale("log")
    ratio = max(values) / min(values)
    if ratio < EVEN:
        axis.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    elif ratio < NARROW:
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0), numticks=12))
    else:
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if ratio < WIDE else (1.0,), numticks=12))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.yaxis.set_minor_formatter(NullFormatter())


def label_values(axis: Any, exits: Sequence[int], values: Sequence[float]) -> None:
    """Write the values of the first exit, of a quarter, half and three quarters of the layers, and of the last."""
    last = len(exits) - 1
    rising = values[-1] > values[0]
    for i in sorted({0, last // 4, last // 2, 3 * last // 4, last}):
        axis.annotate(
            short(values[i]),
            (exits[i], values[i]),
            textcoords="offset points",
            xytext=(0, 7),
            # Beside the line rather than on it.
            ha="right" if i == last or (rising and i) else "left",
            fontsize="small",
        )
    axis.margins(x=0.06, y=0.12)


def short(value: float) -> str:
    """Three or four digits: 0.267, 97.6, 1,234, 2.5e+09."""
    return f"{value:,.0f}" if 1000 <= value < 1e6 else f"{value:.3g}"
