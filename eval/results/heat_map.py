"""A heat map over exit layers and drafts, and the file that a figure goes to."""

import io
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Norm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from data.files import write_whole

# cividis reads the same with and without colours.
COLOURS = "cividis"


def save_png(figure: Figure, path: Path) -> Path:
    """Write a figure; returns the path. An older one is replaced."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    write_whole(path, content.getvalue())
    return path


def heat_map(
    axis: Axes,
    values: np.ndarray,
    exits: Sequence[int],
    drafts: Sequence[int],
    *,
    title: str,
    digits: str,
    limits: tuple[float | None, float | None] = (None, None),
    framed: Collection[tuple[int, int]] = (),
) -> None:
    """Values [len(exits), len(drafts)] as colours and numbers, E downwards, d to the right; NaN is an empty field.

    Args:
        axis: to draw on; its colour bar stands beside it.
        values: the numbers.
        exits: E of the rows.
        drafts: d of the columns.
        title: above.
        digits: how a number is written, as in format().
        limits: the numbers of the first and the last colour; None: the smallest and the largest there is.
        framed: (row, column) of the fields to point out.
    """
    image = axis.imshow(values, cmap=COLOURS, aspect="auto", vmin=limits[0], vmax=limits[1])
    axis.set(title=title, xlabel="tokens drafted per round, d", ylabel="exit layer, E")
    axis.set_xticks(range(len(drafts)), list(map(str, drafts)))
    axis.set_yticks(range(len(exits)), list(map(str, exits)))
    _numbers(axis, values, image.norm, digits)
    for y, x in framed:
        frame = Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, fill=False, edgecolor="white", linewidth=1.6)
        frame.set_path_effects([withStroke(linewidth=3.6, foreground="black")])
        axis.add_patch(frame)
    figure = axis.get_figure()
    assert figure is not None
    figure.colorbar(image, ax=axis)


def _numbers(axis: Axes, values: np.ndarray, norm: Norm, digits: str) -> None:
    for (i, j), value in np.ndenumerate(values):
        red, green, blue, _ = colormaps[COLOURS](norm(value)) if np.isfinite(value) else (1, 1, 1, 1)
        ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
        text = format(value, digits) if np.isfinite(value) else "-"
        axis.text(j, i, text, ha="center", va="center", color=ink, fontsize="small")
