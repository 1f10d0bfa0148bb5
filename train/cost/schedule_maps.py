"""p(l, t) and e~(t, l) as columns of layers, for heat maps over layer and step."""

from collections.abc import Sequence
from dataclasses import dataclass

from train.config import PretrainConfig
from train.cost.facts import dropout_at, mean_weights, sampled_steps, weights_at

N_COLUMNS = 100
FIRST_STEPS = 64


@dataclass(frozen=True)
class ScheduleMap:
    """A picture of a schedule: columns that divide the steps 0..end evenly, each with a value for every layer."""

    title: str
    columns: Sequence[Sequence[float]]
    end: int


def schedule_maps(config: PretrainConfig) -> list[ScheduleMap]:
    """p over the run; the mean of e~ in each of 100 parts of the run; e~ in each of the first steps.

    A part of the run has at least one rotation, so the means show shares and no interference of R with the columns. Of
    `config` the sections model, train, layer_dropout and early_exit are looked at.
    """
    total, layers = config.train.steps, config.model.n_layers
    steps = sampled_steps(config)
    n_columns = min(N_COLUMNS, len(steps) // layers or 1)
    parts = [steps[i * len(steps) // n_columns : (i + 1) * len(steps) // n_columns] for i in range(n_columns)]
    first = min(total, FIRST_STEPS)
    return [
        ScheduleMap("p(l, t)", [dropout_at(config, part[len(part) // 2]) for part in parts], total),
        ScheduleMap("e~(t, l), mean", [mean_weights(config, part) for part in parts], total),
        ScheduleMap(f"e~(t, l), first {first} steps", [weights_at(config, t) for t in range(first)], first),
    ]
