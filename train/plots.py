"""Perplexity by exit over training, as a PNG."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from train.report import exits_of


def plot_perplexity_by_exit(rows: list[dict[str, Any]], path: Path) -> None:
    """Left: perplexity of each exit over the steps. Right: of the last validation, by exit layer.

    Args:
        rows: of metrics.jsonl; those without validation are passed over.
        path: of the PNG; replaced.
    """
    rows = [row for row in rows if "val/tokens" in row]
    exits = exits_of(rows[-1])
    figure, (over_steps, by_exit) = plt.subplots(1, 2, figsize=(11, 4.5), width_ratios=(3, 2), layout="constrained")
    colours = plt.colormaps["viridis"]
    for i, name in enumerate(exits):
        points = [(row["step"], row[f"val/ppl/{name}"]) for row in rows if f"val/ppl/{name}" in row]
        colour = colours(0.92 * i / max(1, len(exits) - 1))
        over_steps.plot(*zip(*points, strict=True), marker=".", color=colour, label=str(int(name[5:])))
    over_steps.set(xlabel="step", ylabel="validation perplexity", yscale="log", title="Perplexity of each exit")
    over_steps.legend(title="exit layer", ncols=2 if len(exits) > 8 else 1, fontsize="small")
    layers = [int(name[5:]) for name in exits]
    values = [rows[-1][f"val/ppl/{name}"] for name in exits]
    by_exit.plot(layers, values, marker="o", color=colours(0.5))
    by_exit.set(xlabel="exit layer", yscale="log", title=f"After step {rows[-1]['step']}")
    by_exit.annotate(f"{values[-1]:.3g}", (layers[-1], values[-1]), textcoords="offset points", xytext=(-4, 8))
    by_exit.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in (over_steps, by_exit):
        axis.grid(alpha=0.3, which="both")
        axis.yaxis.set_major_formatter(ScalarFormatter())
        axis.yaxis.set_minor_formatter(ScalarFormatter())
        axis.tick_params(which="both", labelsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)
