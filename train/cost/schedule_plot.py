"""p(l, t) and e~(t, l) as heat maps over layer and step."""

import os

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator

from conf.errors import naming
from train.config import PretrainConfig
from train.cost.schedule_maps import schedule_maps


def plot_schedules(config: PretrainConfig, path: str | os.PathLike[str]) -> None:
    """Left: p over the run. Middle: mean of e~ in 100 parts of the run. Right: e~ in each of the first steps."""
    layers = config.model.n_layers
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained", sharey=True)
    for axis, schedule in zip(axes, schedule_maps(config), strict=True):
        # Weights differ by orders of magnitude: a square root lets the small ones be seen.
        image = axis.imshow(
            [list(row) for row in zip(*schedule.columns, strict=True)],
            aspect="auto",
            origin="lower",
            interpolation="nearest",
            extent=(0, schedule.end, 0.5, layers + 0.5),
            norm=PowerNorm(0.5, vmin=0.0),
        )
        axis.set(title=schedule.title, xlabel="step t")
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        figure.colorbar(image, ax=axis)
    axes[0].set(ylabel="exit_layer = l + 1")
    figure.suptitle(f"{config.recipe}: {config.model.name}")
    with naming(path):
        figure.savefig(path, dpi=120)
    plt.close(figure)
