"""p(l, t) and e~(t, l) as heat maps over layer and step."""

import os

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator

from conf.errors import naming
from train.config import PretrainConfig
from train.cost.facts import dropout_at, sampled_steps, weights_at

N_COLUMNS = 100
FIRST_STEPS = 64


def plot_schedules(config: PretrainConfig, path: str | os.PathLike[str]) -> None:
    """Left: p over the run. Middle: mean of e~ in each of 100 parts of the run. Right: e~ in each of the first steps.

    A part of the run has at least one rotation, so the middle shows shares and no interference of R with the columns.
    """
    total, layers = config.train.steps, config.model.n_layers
    steps = sampled_steps(config)
    n_columns = min(N_COLUMNS, len(steps) // layers or 1)
    parts = [steps[i * len(steps) // n_columns : (i + 1) * len(steps) // n_columns] for i in range(n_columns)]
    weights = [[weights_at(config, t) for t in part] for part in parts]
    means = [[sum(column) / len(part) for column in zip(*part, strict=True)] for part in weights]
    first = min(total, FIRST_STEPS)
    panels = (
        ("p(l, t)", [dropout_at(config, part[len(part) // 2]) for part in parts], total),
        ("e~(t, l), mean", means, total),
        (f"e~(t, l), first {first} steps", [weights_at(config, t) for t in range(first)], first),
    )
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained", sharey=True)
    for axis, (title, columns, end) in zip(axes, panels, strict=True):
        # Weights differ by orders of magnitude: a square root lets the small ones be seen.
        image = axis.imshow(
            [list(row) for row in zip(*columns, strict=True)],
            aspect="auto",
            origin="lower",
            interpolation="nearest",
            extent=(0, end, 0.5, layers + 0.5),
            norm=PowerNorm(0.5, vmin=0.0),
        )
        axis.set(title=title, xlabel="step t")
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        figure.colorbar(image, ax=axis)
    axes[0].set(ylabel="exit_layer = l + 1")
    figure.suptitle(f"{config.recipe}: {config.model.name}")
    with naming(path):
        figure.savefig(path, dpi=120)
    plt.close(figure)
