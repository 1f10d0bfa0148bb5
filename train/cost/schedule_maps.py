"""p(l, t) and e~(t, l) as columns of layers, for heat maps over layer and step."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from train.config import PretrainConfig
from train.cost.facts import dropout_at, mean_weights, sampled_steps, weights_at
from train.recipe.curriculum import Curriculum, rotation

N_COLUMNS = 100
FIRST_STEPS = 64


@dataclass(frozen=True)
class ScheduleMap:
    """A picture of a schedule: columns that divide the steps 0..end evenly, each with a value for every layer."""

    title: str
    columns: Sequence[Sequence[float]]
    end: int


def schedule_maps(config: PretrainConfig) -> list[ScheduleMap]:
    """Dropout over the run; the mean of e~ in each of 100 parts of the run; e~ in each of the first steps.

    A part has whole rotations, so the means show shares and no interference of R with the columns. Of `config` the
    sections model, train, layer_dropout and early_exit are looked at.
    """
    total = config.train.steps
    steps = sampled_steps(config)
    rotates = config.early_exit.curriculum == Curriculum.rotational
    period = min(rotation(config.early_exit, config.model.n_layers) if rotates else 1, total)
    n_periods = len(steps) // period
    n_columns = min(N_COLUMNS, n_periods)
    bounds = [i * n_periods // n_columns * period for i in range(n_columns + 1)]
    parts = [steps[start:end] for start, end in pairwise(bounds)]
    first = min(total, FIRST_STEPS)
    return [
        ScheduleMap("p(l, t)", [dropout_at(config, part[len(part) // 2]) for part in parts], total),
        ScheduleMap("e~(t, l), mean", [mean_weights(config, part) for part in parts], total),
        ScheduleMap(f"e~(t, l), first {first} steps", [weights_at(config, t) for t in range(first)], first),
    ]
