"""Which runs are one arm: the same recipe with other seeds. Its name says what of LayerSkip it has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conf.strict import ConfigError
from eval.figure.run import Run
from models.storage.recipe import recipe_of

BASELINE, LD, EE, LD_EE = "baseline", "LD", "EE", "LD+EE"
FOUR = (BASELINE, LD, EE, LD_EE)
"""The paper's arms, in its order: plain training, layer dropout, early-exit loss, both."""
SEED = "train.seed"
OFF = (None, False, 0, "none")
LENGTH = ("train.steps", "train.global_batch_size")
"""How long a run is; Figure 11 has runs of several lengths in a line."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A line of a figure."""

    name: str
    runs: Sequence[Run]

    def of_length(self, total_tokens: int) -> list[Run]:
        """Its runs of so many training tokens: the seeds."""
        return [run for run in self.runs if run.total_tokens == total_tokens]

    @property
    def lengths(self) -> list[int]:
        """Training tokens of its runs, ascending."""
        return sorted({run.total_tokens for run in self.runs})


def kind_of(run: Run) -> str:
    """Which of FOUR a run is."""
    early_exit = run.config["early_exit"]
    drops = run.config["layer_dropout"]["p_max"] > 0
    learn = early_exit["e_scale"] > 0 or early_exit.get("distillation", {}).get("strength", 0) > 0
    exits = early_exit["curriculum"] != "none" and learn
    return {(False, False): BASELINE, (True, False): LD, (False, True): EE, (True, True): LD_EE}[drops, exits]


def recipe(run: Run) -> dict[str, Any]:
    """What decides about the run's weights, less what is off or has no effect while layer dropout or exits are off.

    So a run of an older version, whose configuration lacks an option, is of the same recipe as one that has it off.
    """
    kind = kind_of(run)
    off = {BASELINE: ("layer_dropout.", "early_exit."), LD: ("early_exit.",), EE: ("layer_dropout.",), LD_EE: ()}[kind]
    return {k: v for k, v in recipe_of(run.config).items() if not k.startswith(off) and v not in OFF}


def arms_by_recipe(runs: Sequence[Run]) -> list[Arm]:
    """The arms of runs, in the order of FOUR; several recipes of one kind are told apart by the keys that differ."""
    groups: dict[str, dict[tuple[tuple[str, str], ...], list[Run]]] = {kind: {} for kind in FOUR}
    for run in runs:
        same = {key: value for key, value in recipe(run).items() if key not in (SEED, *LENGTH)}
        groups[kind_of(run)].setdefault(tuple((key, str(value)) for key, value in same.items()), []).append(run)
    found = []
    for kind, variants in groups.items():
        recipes = [dict(variant) for variant in variants]
        keys = dict.fromkeys(key for values in recipes for key in values)
        differing = [key for key in keys if len({values.get(key) for values in recipes}) > 1]
        for values, its in zip(recipes, variants.values(), strict=True):
            said = ", ".join(f"{key.rpartition('.')[2]}={values.get(key, 'off')}" for key in differing)
            found.append(Arm(name=f"{kind} ({said})" if said else kind, runs=its))
    for arm in found:
        _seeds_alone(arm, "runs")
    return found


def named_arms(runs: Mapping[str, Sequence[Run]]) -> list[Arm]:
    """The arms that a user has named. Raises ConfigError where one has runs of several recipes, or one run twice."""
    arms = [Arm(name=name, runs=its) for name, its in runs.items()]
    seen: dict[Any, str] = {}
    for arm in arms:
        for run in arm.runs:
            if other := seen.get(run.folder):
                raise ConfigError(f"arms.{arm.name}: {run.folder} is in arms.{other} as well; a run is of one arm")
            seen[run.folder] = arm.name
        _seeds_alone(arm, f"arms.{arm.name}")
    return arms


def _seeds_alone(arm: Arm, key: str) -> None:
    """Runs of one length may differ in the seed and in nothing else, or the band around their mean would mislead."""
    for length in arm.lengths:
        first, *others = arm.of_length(length)
        for other in others:
            recipes = recipe(first), recipe(other)
            different = sorted(
                k for k in recipes[0].keys() | recipes[1].keys() if recipes[0].get(k) != recipes[1].get(k)
            )
            if different != [SEED]:
                what = (
                    f"differ in {', '.join(k for k in different if k != SEED)}"
                    if different
                    else f"have the same {SEED}"
                )
                remedy = "leave one out" if not different else "make two arms of them"
                raise ConfigError(f"{key}: {first.folder} and {other.folder} {what}; {remedy}")
