"""Draw the figures of docs/ with the functions that train and decode: `python -m docs.make_figures [FOLDER]`."""

import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from models.speculation import ideal_speedup
from train.recipe.curriculum import EarlyExitConfig
from train.recipe.dropout_schedule import LayerDropoutConfig, depth_scale, dropout_probability, time_scale
from train.recipe.exit_weights import exit_weights

FOLDER = Path(__file__).parent / "images"
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#d9d9d9"
STYLES = ("-", "--", ":", "-.")
STYLE = {"svg.hashsalt": "docs", "svg.fonttype": "none", "font.size": 10, "axes.spines.top": False} | {
    "axes.spines.right": False,
    "legend.frameon": False,
}


def layer_dropout() -> Figure:
    """p(l, t): over depth, over time, and both."""
    n_layers, steps = 16, 1000
    figure, (depth, time, both) = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    layers = range(n_layers)
    for name, style, color in zip(("exponential", "linear", "constant"), STYLES, (BLUE, ORANGE, GREEN), strict=False):
        depth.plot(
            [i + 1 for i in layers], [depth_scale(name, i, n_layers) for i in layers], style, c=color, label=name
        )
    for name, style, color in zip(
        ("constant", "exponential", "decreasing"), STYLES, (GREEN, BLUE, ORANGE), strict=False
    ):
        time.plot(range(steps), [time_scale(name, t, steps) for t in range(steps)], style, c=color, label=name)
    depth.set(title="layer_dropout.depth_schedule, D(l)", xlabel="layer", ylim=(-0.05, 1.05))
    time.set(title="layer_dropout.time_schedule, S(t)", xlabel="step t of 1,000", ylim=(-0.05, 1.05))
    for axis in (depth, time):
        axis.legend()
    config = LayerDropoutConfig(p_max=0.2, time_schedule="exponential")
    columns = [[dropout_probability(config, i, t, n_layers, steps) for t in range(0, steps, 20)] for i in layers]
    _heat(figure, both, columns, steps, "p(l, t) of layer_dropout=exp_scratch_02")
    return figure


def curricula() -> Figure:
    """e~(t, l) of the first or all steps under each curriculum."""
    n_layers, e_scale = 12, 0.2
    choices = {
        "all": (EarlyExitConfig(curriculum="all", e_scale=e_scale), 24),
        "rotational, rotation_period=4": (
            EarlyExitConfig(curriculum="rotational", e_scale=e_scale, rotation_period=4),
            24,
        ),
        "rotational, rotation_period=null": (EarlyExitConfig(curriculum="rotational", e_scale=e_scale), 24),
        "the same, include_last_layer=false": (
            EarlyExitConfig(curriculum="rotational", e_scale=e_scale, include_last_layer=False),
            24,
        ),
        "gradual, a run of 48 steps": (EarlyExitConfig(curriculum="gradual", e_scale=e_scale), 48),
    }
    figure, axes = plt.subplots(1, len(choices), figsize=(16, 3.2), layout="constrained", sharey=True)
    for axis, (name, (config, steps)) in zip(axes, choices.items(), strict=True):
        by_step = [exit_weights(config, t, n_layers, steps) for t in range(steps)]
        rows = [[weights.get(i, 0.0) for weights in by_step] for i in range(n_layers)]
        _heat(figure, axis, rows, steps, name, most=1.0, bar=axis is axes[-1])
    axes[0].set(ylabel="exit_layer")
    return figure


def shares() -> Figure:
    """What part of the loss each exit has when all are trained."""
    n_layers = 16
    figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
    for e_scale, style, color in zip((0.1, 0.2, 1.0), STYLES, (BLUE, ORANGE, GREEN), strict=False):
        weights = exit_weights(EarlyExitConfig(curriculum="all", e_scale=e_scale), 0, n_layers, 100)
        label = f"e_scale={e_scale:g}: last layer {weights[n_layers - 1]:.0%}"
        axis.plot([i + 1 for i in weights], list(weights.values()), style, marker=".", c=color, label=label)
    axis.set(
        title="weight of each exit with curriculum all, 16 layers", xlabel="exit_layer", ylabel="share of the loss"
    )
    axis.legend()
    return figure


def self_speculation() -> Figure:
    """One round: E layers draft d tokens one by one, the others check all of them at once."""
    figure, axis = plt.subplots(figsize=(8.6, 3.4), layout="constrained")
    drafts, n_layers, exit_layer = ["the", "cat", "sat", "in"], 8, 3
    taken = 3  # the full model says "on" instead of the fourth
    for column, word in enumerate(["On", *drafts]):
        for layer in range(n_layers):
            low = layer < exit_layer
            axis.add_patch(Rectangle((column * 1.5, layer), 1.1, 0.8, color=BLUE if low else ORANGE, alpha=0.75, lw=0))
        axis.text(column * 1.5 + 0.55, -0.75, word, ha="center")
        verdict = ["the", "cat", "sat", "on", ""][column]
        if column <= taken:
            good = column < taken
            axis.text(
                column * 1.5 + 0.55, n_layers + 0.2, verdict, ha="center", c=GREEN if good else ORANGE, weight="bold"
            )
    for column, word in enumerate(drafts):
        axis.annotate(
            "",
            (column * 1.5 + 1.75, -0.3),
            (column * 1.5 + 0.9, exit_layer - 0.1),
            arrowprops={"arrowstyle": "->", "color": BLUE, "connectionstyle": "arc3,rad=-0.2"},
        )
        axis.text(column * 1.5 + 1.13, exit_layer - 0.1, word, fontsize=8, c=BLUE)
    notes = (
        (1.2, BLUE, "1. The first E layers write d drafts, one after another."),
        (5.0, ORANGE, "2. The other layers read all\nd + 1 places in one pass."),
        (8.1, GREEN, "3. Drafts that the full model\nagrees with stay; its token\nreplaces the first other one."),
    )
    for y, color, text in notes:
        axis.text(
            7.7, y, text.replace("E layers write d drafts, one", "E layers write d drafts,\none"), c=color, va="top"
        )
    axis.text(-0.3, -0.75, "read", ha="right")
    axis.text(-0.3, n_layers + 0.2, "full model", ha="right")
    axis.set(xlim=(-1.8, 12.2), ylim=(-1.2, n_layers + 1))
    axis.axis("off")
    return figure


def speed_up() -> Figure:
    """The speed-up that counts of blocks allow, over the share of drafts that are accepted."""
    n_layers, head = 32, 1.0
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
    chances = [i / 100 for i in range(1, 100)]
    for axis, exit_layer in zip(axes, (8, 16), strict=True):
        styles = cycle(STYLES)
        for d, color in zip((2, 4, 8, 12), (BLUE, ORANGE, GREEN, "black"), strict=True):
            # Each draft is right with the same chance, whatever the others are.
            accepted = [sum(c**i for i in range(1, d + 1)) for c in chances]
            curve = [ideal_speedup(n_layers=n_layers, exit_layer=exit_layer, d=d, n=n, head=head) for n in accepted]
            axis.plot(chances, curve, next(styles), c=color, label=f"d={d}")
        axis.axhline(1.0, c="grey", lw=0.8)
        axis.set(title=f"{n_layers} layers, exit_layer={exit_layer}", xlabel="chance that a draft is right")
        axis.legend()
    axes[0].set(ylabel="speed-up that is possible")
    return figure


def _heat(
    figure: Figure,
    axis: Axes,
    rows: list[list[float]],
    end: int,
    title: str,
    most: float | None = None,
    bar: bool = True,
) -> None:
    extent = (0, end, 0.5, len(rows) + 0.5)
    image = axis.imshow(rows, aspect="auto", origin="lower", interpolation="nearest", extent=extent, vmin=0, vmax=most)
    axis.set(title=title, xlabel="step t")
    axis.title.set_fontsize(9)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    if bar:
        figure.colorbar(image, ax=axis)


FIGURES: dict[str, Callable[[], Figure]] = {
    "layer_dropout": layer_dropout,
    "curricula": curricula,
    "shares": shares,
    "self_speculation": self_speculation,
    "speed_up": speed_up,
}


def draw(folder: Path) -> None:
    """Write every figure as NAME.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        for name, make in FIGURES.items():
            figure = make()
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None}, facecolor="white")
            plt.close(figure)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
