"""Figure 11: perplexity of the middle and of the last layer over training tokens, a line for each arm."""

from collections.abc import Sequence

from eval.figure.arms import Arm
from eval.figure.config import NoNumbersError, Spread
from eval.figure.panel import Axis, Drawn, Line, Panel
from eval.figure.spread import band, in_words


def perplexity_over_tokens(arms: Sequence[Arm], spread: Spread) -> Drawn:
    """Points are the ends of runs of several lengths, as in the paper, or else the validations of each run.

    Raises NoNumbersError where there would be a point of each arm alone, or where an exit was not validated.
    """
    lengths = max(len(arm.lengths) for arm in arms)
    points = {arm.name: _ends(arm) if lengths > 1 else _course(arm) for arm in arms}
    if all(len(its) < 2 for its in points.values()):
        raise NoNumbersError(
            "figures: over_tokens needs several validations in each run (validation.every), or runs of several lengths"
        )
    n_layers = arms[0].runs[0].n_layers
    middle = max(1, n_layers // 2)
    exits = {f"Middle layer (exit {middle} of {n_layers})": middle, f"Last layer (exit {n_layers})": n_layers}
    panels = []
    for title, exit_layer in exits.items():
        lines = []
        for name, its in points.items():
            try:
                found = [(x, band([losses[exit_layer] for losses in several], spread).exp()) for x, several in its]
            except KeyError:
                raise NoNumbersError(
                    f"figures: over_tokens needs exit {exit_layer}, which was not validated (validation.exit_layers)"
                ) from None
            lines.append(Line(arm=name, x=[x for x, _ in found], bands=[b for _, b in found]))
        panels.append(Panel(title=title, label="held-out perplexity", axis=Axis.tokens, lines=lines, log=True))
    what = "each point is the end of a run" if lengths > 1 else "validations in the course of each run"
    counts = [max(len(several) for _, several in its) for its in points.values() if its]
    return Drawn(panels=panels, caption=f"{what}; {in_words(spread, counts)}")


Points = list[tuple[float, list[dict[int, float]]]]
"""(training tokens, the losses by exit of each seed there)."""


def _ends(arm: Arm) -> Points:
    return [
        (float(length), [dict(run.validation(None).losses) for run in arm.of_length(length)]) for length in arm.lengths
    ]


def _course(arm: Arm) -> Points:
    """At the steps that all seeds have."""
    courses = [{v.step: v for v in run.course} for run in arm.runs]
    shared = sorted(set.intersection(*(set(course) for course in courses)))
    return [(float(arm.runs[0].tokens_at(step)), [dict(course[step].losses) for course in courses]) for step in shared]
