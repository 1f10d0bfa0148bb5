"""The configuration of eval.figures."""

from dataclasses import dataclass, field
from enum import StrEnum

from conf.checks import at_least
from conf.strict import ConfigError


class FigureName(StrEnum):
    """A figure or a table, most of them the paper's."""

    by_exit = "by_exit"
    """Quality at each exit layer, a line for each arm (Figures 6, 8 and 10)."""
    over_tokens = "over_tokens"
    """Perplexity of the middle and of the last layer over training tokens, a line for each arm (Figure 11)."""
    dropout = "dropout"
    """Depth schedules of layer dropout against each other (Figure 12)."""
    recipes = "recipes"
    """A table: the last layer against plain training's, and what the exits after a quarter, half and three quarters of
    the layers are worth, a row for each arm."""
    speed = "speed"
    """Speed-up of self-speculation, and the table of speed and quality (Tables 3 to 6)."""


class NoNumbersError(ConfigError):
    """These runs do not have what a figure shows: left out, unless it was asked for by name."""


class Spread(StrEnum):
    """What a band or a bar around a mean over seeds shows."""

    min_max = "min_max"
    """From the smallest to the largest."""
    std = "std"
    """One sample standard deviation (n - 1) to each side."""


@dataclass(kw_only=True)
class FiguresConfig:
    """Draw the figures of several runs beside each other."""

    runs: list[str] = field(default_factory=list)
    """Run folders, folders of runs (of a sweep), or globs of either. A run's configuration says which arm it is of:
    baseline, LD, EE or LD+EE; runs that differ in their seed alone are drawn as one line with a band."""
    arms: dict[str, list[str]] = field(default_factory=dict)
    """In place of runs: name of an arm -> folders or globs, as in runs: '+arms={ours:[PATH],theirs:[PATH]}'."""
    figures: list[FigureName] = field(default_factory=list)
    """What to draw; empty: all that these runs have numbers for."""
    step: int | None = None
    """Step of the validation that by_exit shows; null: the last step of each run, which must be finished."""
    exits: list[str] = field(default_factory=list)
    """JSON files of eval.exits, or globs, whose metrics stand beside perplexity in by_exit; empty: those in the folders
    of the runs."""
    speed: list[str] = field(default_factory=list)
    """JSON files of eval.benchmark and eval.sweep, or globs; empty: those in the folders of the runs."""
    spread: Spread = Spread.min_max
    """What bands and bars show where an arm has several seeds: min_max, or std."""
    output: str = "outputs/figures"
    """Folder of the figures (.svg, .pdf, .png), tables (.md, .tex, .csv) and of their numbers (figures.json)."""

    def __post_init__(self) -> None:
        at_least(1, self, "step")
        if bool(self.runs) == bool(self.arms):
            what = (
                "leave one of the two out, as arms names its runs" if self.runs else "give run folders, 'runs=[PATH]'"
            )
            raise ValueError(f"runs: {what}")
        for key, globs in [("runs", self.runs), *((f"arms.{name}", paths) for name, paths in self.arms.items())]:
            if "" in globs or (key != "runs" and not globs):
                raise ValueError(f"{key}: names no run; give its folder")
