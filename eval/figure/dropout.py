"""Figure 12: depth schedules of layer dropout against each other, such as exponential against constant."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from eval.figure.arms import LD, LD_EE, Arm, kind_of, recipe
from eval.figure.config import NoNumbersError, Spread
from eval.figure.over_tokens import perplexity_over_tokens
from eval.figure.panel import Axis, Drawn, Line, Panel
from eval.figure.run import Run
from eval.figure.spread import band, in_words

POINTS = 60
"""Points of a line of training losses, at most; each is the mean of as many lines of metrics.jsonl as it takes."""
SECTION = "layer_dropout."


def dropout_schedules(arms: Sequence[Arm], spread: Spread) -> Drawn:
    """Training loss and held-out perplexity of the last layer, for the arms that differ in their layer dropout alone.

    Raises NoNumbersError where no two arms do.
    """
    compared = _compared(arms)
    lines = [Line(arm=_name(arm), x=x, bands=y) for arm in compared for x, y in [_training_loss(arm, spread)]]
    counts = [len(arm.runs) for arm in compared]
    last = compared[0].runs[0].n_layers
    title = f"Training loss, last layer (exit {last})"
    panels = [Panel(title=title, label="loss (nats per token)", axis=Axis.tokens, lines=lines)]
    named = [Arm(name=_name(arm), runs=arm.runs) for arm in compared]
    held_out = perplexity_over_tokens(named, spread).panels[-1]
    panels.append(replace(held_out, title=f"Held-out perplexity, last layer (exit {last})", label="perplexity"))
    n_lines = _lines_a_point(compared)
    averaged = f"; each point of the loss is the mean of {n_lines} log lines" if n_lines > 1 else ""
    return Drawn(panels=panels, caption=f"layer dropout p(l) by depth{averaged}; {in_words(spread, counts)}")


def _compared(arms: Sequence[Arm]) -> list[Arm]:
    """The largest group of arms that differ in the section layer_dropout alone, with two depth schedules or more."""
    groups: dict[Any, list[Arm]] = {}
    for arm in arms:
        first = arm.runs[0]
        if kind_of(first) in (LD, LD_EE) and len(arm.lengths) == 1:
            rest = {
                key: str(value) for key, value in recipe(first).items() if not key.startswith((SECTION, "train.seed"))
            }
            groups.setdefault(tuple(rest.items()), []).append(arm)
    several = [its for its in groups.values() if len({_depth(arm.runs[0]) for arm in its}) > 1]
    if not several:
        raise NoNumbersError(
            "figures: dropout needs two arms whose layer_dropout.depth_schedule differs and nothing but layer_dropout"
            " (layer_dropout=exp_02 and layer_dropout=constant)"
        )
    return max(several, key=len)


def _depth(run: Run) -> str:
    return str(run.config["layer_dropout"]["depth_schedule"])


def _name(arm: Arm) -> str:
    """`exponential, p 0 to 0.2`, `constant, p = 0.0889`, with what else is not the paper's."""
    config: Mapping[str, Any] = arm.runs[0].config["layer_dropout"]
    rates = f"p = {config['p_max']:g}" if _depth(arm.runs[0]) == "constant" else f"p 0 to {config['p_max']:g}"
    plain = {"time_schedule": "constant", "rescale": "none", "sampling": "bernoulli"}
    more = [f", {key}={config[key]}" for key, usual in plain.items() if config.get(key, usual) != usual]
    return f"{_depth(arm.runs[0])}, {rates}" + "".join(more)


def _losses(arm: Arm) -> list[dict[int, float]]:
    """Step -> training loss of the last layer, for each seed; at the steps that all have."""
    each = [run.training_losses(run.n_layers) for run in arm.runs]
    shared = sorted(set.intersection(*(set(losses) for losses in each)))
    if not shared:
        raise NoNumbersError(
            f"{arm.runs[0].folder}: metrics.jsonl has no training loss of the last layer; dropout cannot be drawn"
        )
    return [{step: losses[step] for step in shared} for losses in each]


def _lines_a_point(arms: Sequence[Arm]) -> int:
    return max(-(-len(_losses(arm)[0]) // POINTS) for arm in arms)


def _training_loss(arm: Arm, spread: Spread) -> tuple[list[float], list[Any]]:
    seeds = _losses(arm)
    steps = list(seeds[0])
    size = -(-len(steps) // POINTS)
    parts = [steps[i : i + size] for i in range(0, len(steps), size)]
    x = [fmean(arm.runs[0].tokens_at(step) for step in part) for part in parts]
    return x, [band([fmean(losses[step] for step in part) for losses in seeds], spread) for part in parts]
