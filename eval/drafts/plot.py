"""The breakdowns of `eval.rejections` as a PNG."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from conf.errors import naming
from eval.drafts.findings import DraftsPart, Rejections

BLUE, RED, GREY = "#2a6fb0", "#c0392b", "#9aa3ab"


def plot(found: Rejections, path: Path) -> None:
    """Six panels: acceptance by class, position, confidence and entropy; rejections by class and rank.

    Args:
        found: all that was found.
        path: of the PNG; replaced.
    """
    figure, axes = plt.subplots(2, 3, figsize=(15, 8.5), layout="constrained")
    _classes(axes[0, 0], found)
    _who_is_rejected(axes[0, 1], found)
    _positions(axes[0, 2], found)
    _ranks(axes[1, 0], found)
    parts, setting, totals = found.breakdowns, found.setting, found.totals
    _acceptance(axes[1, 1], parts.by_confidence, "draft's own probability of its token", "By confidence of the draft")
    _acceptance(axes[1, 2], parts.by_entropy, "bits", "By entropy of the draft's distribution")
    figure.suptitle(
        f"{setting.task}: {setting.n_samples:,} samples, E={setting.exit_layer} of {setting.n_layers},"
        f" d={setting.num_speculations}; {totals.drafted:,} drafted, {totals.accepted:,} accepted,"
        f" {totals.rejected:,} rejected, {totals.after_rejection + totals.after_end:,} never judged"
    )
    with naming(path):
        figure.savefig(path, dpi=120)
    plt.close(figure)


def _classes(axis: Axes, found: Rejections) -> None:
    rows, acceptance = found.breakdowns.by_class_and_piece, found.totals.acceptance
    names = [row.value.removesuffix(", no word") for row in rows]
    places = range(len(rows))
    axis.errorbar([r.acceptance.value for r in rows], places, xerr=_errors(rows), fmt="o", color=BLUE, capsize=3)
    if acceptance:
        axis.axvline(acceptance.value, color=GREY, linestyle="--", label=f"all: {acceptance.value:.1%}")
        axis.legend(fontsize="small", loc="lower left", framealpha=0.6)
    axis.set_yticks(places, [f"{n} ({r.judged:,})" for n, r in zip(names, rows, strict=True)])
    axis.invert_yaxis()
    axis.set(
        xlim=(-0.03, 1.03),
        xlabel="accepted of those judged; 95 % over samples",
        title="By class (and how many were judged)",
    )
    axis.xaxis.set_major_formatter(PercentFormatter(1))
    axis.grid(alpha=0.3)


def _who_is_rejected(axis: Axes, found: Rejections) -> None:
    rows = found.breakdowns.by_class_and_piece
    places = range(len(rows))
    axis.barh([i - 0.2 for i in places], [r.share_of_judged for r in rows], 0.4, color=GREY, label="of all judged")
    rejected = [r.share_of_rejections or 0 for r in rows]
    axis.barh([i + 0.2 for i in places], rejected, 0.4, color=RED, label="of all rejected")
    axis.set_yticks(places, [row.value.removesuffix(", no word") for row in rows])
    axis.invert_yaxis()
    axis.set(xlabel="share", title="What is judged, and what of it is rejected")
    axis.xaxis.set_major_formatter(PercentFormatter(1))
    axis.legend(fontsize="small")
    axis.grid(alpha=0.3, axis="x")


def _positions(axis: Axes, found: Rejections) -> None:
    rows = found.breakdowns.by_position
    places = [int(row.value) for row in rows]
    accepted = [row.acceptance.value for row in rows]
    axis.errorbar(
        places, accepted, yerr=_errors(rows), marker="o", color=BLUE, capsize=3, label="of those judged there"
    )
    drafted = [row.accepted_of_drafted for row in rows]
    axis.plot(places, drafted, marker="s", color=RED, label="of all drafted there")
    axis.set(ylim=(0, 1.03), xlabel="position in the draft", ylabel="accepted", title="By position in the draft")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.legend(fontsize="small")
    axis.grid(alpha=0.3)


def _ranks(axis: Axes, found: Rejections) -> None:
    """Both sides of a rejection: the draft in the full model's distribution, the full model's token in the draft's."""
    ours, theirs = (
        {r.value: r.share_of_rejections or 0 for r in parts if r.rejected}
        for parts in (found.breakdowns.by_rank, found.breakdowns.by_rank_of_full)
    )
    names = sorted({*ours, *theirs}, key=lambda name: int(name.rstrip("+").partition("-")[0]))
    places = range(len(names))
    axis.bar(
        [i - 0.2 for i in places], [ours.get(n, 0) for n in names], 0.4, color=RED, label="draft, in the full model"
    )
    axis.bar(
        [i + 0.2 for i in places],
        [theirs.get(n, 0) for n in names],
        0.4,
        color=BLUE,
        label="text's token, in the draft",
    )
    axis.set_xticks(places, names)
    axis.set(xlabel="rank", ylabel="share of all rejected", title="Ranks where a draft was rejected")
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.legend(fontsize="small")
    axis.grid(alpha=0.3, axis="y")


def _acceptance(axis: Axes, rows: Sequence[DraftsPart], label: str, title: str) -> None:
    places = range(len(rows))
    axis.bar(places, [r.share_of_judged for r in rows], color=GREY, alpha=0.5, label="share of judged")
    accepted = [r.acceptance.value for r in rows]
    axis.errorbar(places, accepted, yerr=_errors(rows), marker="o", color=BLUE, capsize=3, label="accepted")
    axis.set_xticks(places, [r.value for r in rows], rotation=40, ha="right", fontsize="small")
    axis.set(ylim=(0, 1.03), xlabel=label, title=title)
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.legend(fontsize="small", loc="center")
    axis.grid(alpha=0.3, axis="y")


def _errors(rows: Sequence[DraftsPart]) -> list[list[float]]:
    """From the value down and up to the interval's ends."""
    return [
        [max(0.0, r.acceptance.value - r.acceptance.low) for r in rows],
        [max(0.0, r.acceptance.high - r.acceptance.value) for r in rows],
    ]
