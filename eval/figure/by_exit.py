"""Figures 6, 8 and 10: quality at each exit layer, a line for each arm."""

from collections.abc import Sequence

from conf.strict import ConfigError
from eval.figure.arms import Arm
from eval.figure.config import Spread
from eval.figure.draw import count
from eval.figure.panel import Axis, Drawn, Line, Panel
from eval.figure.run import Run
from eval.figure.spread import bands, in_words
from eval.figure.task_scores import TaskScores, metrics_of


def quality_by_exit(arms: Sequence[Arm], scores: Sequence[TaskScores], step: int | None, spread: Spread) -> Drawn:
    """Held-out perplexity, and a panel for each metric of a task that eval.exits has measured.

    Of runs of several lengths the longest that all arms have is shown.

    Args:
        arms: of comparable runs.
        scores: of those runs.
        step: the validation that is shown; None: the last of each run.
        spread: what bands show.

    Raises ConfigError for runs that are not that far, or have no length in common.
    """
    length = _shared_length(arms)
    seeds = {arm.name: arm.of_length(length) for arm in arms}
    panels = [_perplexity(seeds, step, spread), *_tasks(seeds, scores, spread)]
    shown = [run for runs in seeds.values() for run in runs]
    at = shown[0].validation(step)
    trained = count(shown[0].tokens_at(at.step))
    caption = (
        f"after {trained} training tokens (step {at.step:,}); perplexity of {at.held_out_tokens:,} held-out tokens;"
        f" {in_words(spread, [len(runs) for runs in seeds.values()])}"
    )
    return Drawn(panels=panels, caption=caption)


def _shared_length(arms: Sequence[Arm]) -> int:
    shared = set.intersection(*(set(arm.lengths) for arm in arms))
    if not shared:
        said = "; ".join(f"{arm.name}: {', '.join(map(count, arm.lengths))}" for arm in arms)
        raise ConfigError(
            f"runs: no number of training tokens is common to all arms ({said}); leave an arm out,"
            " or draw the other figures alone, figures=[over_tokens]"
        )
    return max(shared)


def _perplexity(seeds: dict[str, list[Run]], step: int | None, spread: Spread) -> Panel:
    measured = {name: [run.validation(step) for run in runs] for name, runs in seeds.items()}
    amounts = {
        v.held_out_tokens: run for name, runs in seeds.items() for v, run in zip(measured[name], runs, strict=True)
    }
    if len(amounts) > 1:
        (a, one), (b, other) = list(amounts.items())[:2]
        raise ConfigError(
            f"step={step}: {one.folder} was measured on {a:,} held-out tokens there and {other.folder} on {b:,};"
            " choose a step at which all runs have the same (validation.tokens, validation.final_tokens)"
        )
    lines = []
    for name, validations in measured.items():
        found = bands([v.losses for v in validations], spread)
        lines.append(Line(arm=name, x=list(found), bands=[b.exp() for b in found.values()]))
    return Panel(title="Held-out perplexity", label="perplexity", axis=Axis.exits, lines=lines, log=True)


def _tasks(seeds: dict[str, list[Run]], scores: Sequence[TaskScores], spread: Spread) -> list[Panel]:
    panels = []
    for metric in metrics_of(scores):
        lines = []
        for name, runs in seeds.items():
            its = [s.values[metric] for s in scores if s.run in runs and metric in s.values]
            if its and (found := bands(its, spread)):
                lines.append(Line(arm=name, x=list(found), bands=list(found.values())))
        if lines:
            panels.append(Panel(title=metric.title, label=metric.label, axis=Axis.exits, lines=lines))
    return panels
