"""Perplexity by exit over training, as a PNG."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap

from conf.axes import exit_ticks, label_values, log_ticks
from conf.errors import naming
from models.exits import exit_layer_of
from train.monitoring.report import exits_of


def plot_perplexity_by_exit(rows: list[dict[str, Any]], path: Path) -> None:
    """Left: perplexity of each exit over the steps, coloured by depth. Right: of the last validation, by exit layer.

    Args:
        rows: of metrics.jsonl; those without validation are passed over.
        path: of the PNG; replaced.
    """
    rows = [row for row in rows if "val/tokens" in row]
    names = exits_of(rows[-1])
    layers, last = [exit_layer_of(name) for name in names], [rows[-1][f"val/ppl/{name}"] for name in names]
    figure, (over_steps, by_exit) = plt.subplots(1, 2, figsize=(12, 4.8), width_ratios=(3, 2), layout="constrained")
    # Yellow, the end of viridis, is hard to see on white.
    colours = plt.colormaps["viridis"].resampled(256)(range(236))
    by_depth = [colours[i * 235 // max(1, len(layers) - 1)] for i in range(len(layers))]
    seen = []
    for name, colour in zip(names, by_depth, strict=True):
        points = [(row["step"], row[f"val/ppl/{name}"]) for row in rows if f"val/ppl/{name}" in row]
        over_steps.plot(*zip(*points, strict=True), marker=".", color=colour, linewidth=1.2)
        seen += [value for _, value in points]
    over_steps.set(xlabel="step", ylabel="held-out perplexity", title="Perplexity of each exit over training")
    log_ticks(over_steps, seen)
    bounds = BoundaryNorm([i - 0.5 for i in range(len(layers) + 1)], len(layers))
    depth = ScalarMappable(bounds, ListedColormap(by_depth))
    bar = figure.colorbar(depth, ax=over_steps, label="exit layer", ticks=range(len(layers)))
    bar.ax.set_yticklabels([str(layer) for layer in layers], fontsize="small")
    by_exit.plot(layers, last, color="0.6", zorder=1)
    by_exit.scatter(layers, last, c=by_depth, zorder=2)
    by_exit.set(title=f"By exit layer after step {rows[-1]['step']:,}")
    exit_ticks(by_exit, layers)
    log_ticks(by_exit, last)
    label_values(by_exit, layers, last)
    for axis in (over_steps, by_exit):
        axis.grid(alpha=0.3)
        axis.tick_params(which="both", labelsize="small")
    with naming(path):
        figure.savefig(path, dpi=120)
    plt.close(figure)
