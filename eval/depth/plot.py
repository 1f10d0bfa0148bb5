"""Values by exit layer, a panel for each, as a PNG."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from conf.axes import exit_ticks, label_values, log_ticks
from conf.errors import naming

PANELS_IN_A_ROW = 3


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One panel."""

    title: str
    label: str
    """Label of the vertical axis."""
    exits: list[int]
    values: list[float]
    errors: list[float] | None = None
    """One standard error of each value, drawn as a band."""
    log: bool = False


def plot_by_exit(curves: list[Curve], path: Path, heading: str) -> Path:
    """Write the panels under a heading that says which model and which text; returns the path, which is replaced."""
    n_columns = min(PANELS_IN_A_ROW, len(curves))
    n_rows = -(-len(curves) // n_columns)
    figure, axes = plt.subplots(
        n_rows, n_columns, figsize=(4.6 * n_columns, 3.4 * n_rows + 0.3), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(curves) :]:
        axis.set_visible(False)
    for axis, curve in zip(axes.flat, curves, strict=False):
        axis.plot(curve.exits, curve.values, marker=".")
        if curve.errors and any(curve.errors):
            low = [v - e for v, e in zip(curve.values, curve.errors, strict=True)]
            high = [v + e for v, e in zip(curve.values, curve.errors, strict=True)]
            axis.fill_between(curve.exits, low, high, alpha=0.2)
        axis.set(ylabel=curve.label, title=curve.title)
        exit_ticks(axis, curve.exits)
        if curve.log:
            log_ticks(axis, curve.values)
        label_values(axis, curve.exits, curve.values)
        axis.grid(alpha=0.3)
        axis.tick_params(which="both", labelsize="small")
    figure.suptitle(heading, fontsize="medium")
    with naming(path):
        figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
