"""How figures look: sizes for print, colours that the colour-blind can tell apart, a dash and a marker for each arm."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.figure import Figure

from data.files import write_whole
from eval.figure.arms import BASELINE, EE, LD, LD_EE

COLUMN, PAGE = 3.4, 7.0
"""Inches: the width of a column and of a page of two columns."""
# Text stays text in PDF; in SVG it is outlines, which look the same whatever fonts there are.
PRINT: Mapping[str, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.6,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "figures",
}
# Without dates, so that the same numbers give the same file.
NO_DATE: Mapping[str, Mapping[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
DPI = 300


class Look(NamedTuple):
    """Of a line."""

    colour: str
    dash: Any
    marker: str


# Okabe and Ito's colours, less yellow, which is too faint on white.
OF_FOUR = {
    BASELINE: Look("#000000", "-", "o"),
    LD: Look("#E69F00", (0, (5, 1.5)), "s"),
    EE: Look("#0072B2", (0, (4, 1.2, 1, 1.2)), "^"),
    LD_EE: Look("#D55E00", (0, (1.5, 1)), "D"),
}
OTHERS = (
    Look("#009E73", "-", "v"),
    Look("#CC79A7", (0, (5, 1.5)), "P"),
    Look("#56B4E9", (0, (4, 1.2, 1, 1.2)), "X"),
)


def looks(arms: Iterable[str]) -> dict[str, Look]:
    """Name of an arm -> its look: the paper's four (of several recipes the first) have theirs, others what is left."""
    found: dict[str, Look] = {}
    arms = list(dict.fromkeys(arms))
    for arm in arms:
        look = OF_FOUR.get(arm.partition(" (")[0])
        if look and look not in found.values():
            found[arm] = look
    free = [look for look in (*OTHERS, *OF_FOUR.values()) if look not in found.values()]
    others = [arm for arm in arms if arm not in found]
    return found | {arm: free[i % len(free)] for i, arm in enumerate(others)}


def save(figure: Figure, path: Path) -> list[Path]:
    """Write path.svg, .pdf and .png; returns them. Older ones are replaced."""
    files = []
    for kind, metadata in NO_DATE.items():
        content = io.BytesIO()
        with matplotlib.rc_context(dict(PRINT)):
            figure.savefig(content, format=kind, dpi=DPI, metadata=dict(metadata))
        files.append(path.with_name(f"{path.name}.{kind}"))
        write_whole(files[-1], content.getvalue())
    return files
