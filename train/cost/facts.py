"""What a run will be, in numbers: computed from its configuration alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.flops import BACKWARD, head_flops, plain_flops
from train.config import PretrainConfig, Recompute
from train.cost.communication import Collective, collectives, mean_work, plain_work
from train.cost.flops import mean_flops
from train.cost.memory import Memory, memory_per_gpu, n_parameters
from train.recipe.curriculum import Curriculum, rotation
from train.recipe.dropout_schedule import dropout_probabilities
from train.recipe.exit_weights import exit_weights, mean_weights_of

SAMPLED_STEPS = 2000
DAY = 86400


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Floating-point operations per token, forward and backward, mean over the steps."""

    mean: float
    """FLOPs per token of this run, mean over its steps."""
    heads: float
    """The part of it that the passes through the LM head take."""
    plain: float
    """FLOPs per token of the model without layer dropout and early exits."""
    executed: float
    """`mean` with what activation checkpointing recomputes."""
    plain_executed: float
    """`plain` with what activation checkpointing recomputes."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A run."""

    parameters: int
    tokens: int
    flops: Flops
    mean_exits: float
    """Exits trained in a step, on average."""
    most_exits: int
    """In the step with most of them."""
    memory: Memory
    communication: list[Collective]
    """Of a step, in the mean over the steps."""
    plain_communication: list[Collective]
    """Of a step of the model without layer dropout and early exits."""


def sampled_steps(config: PretrainConfig) -> list[int]:
    """Steps that stand for all T: all of them, or whole rotations spread evenly over a long run."""
    total = config.train.steps
    if total <= SAMPLED_STEPS:
        return list(range(total))
    rotates = config.early_exit.curriculum == Curriculum.rotational
    period = rotation(config.early_exit, config.model.n_layers) if rotates else 1
    n_windows = max(1, SAMPLED_STEPS // period)
    # In the middle of each of n equal parts, so that means over a schedule in time are those of the whole run.
    starts = [round((i + 0.5) * total / n_windows - period / 2) for i in range(n_windows)]
    return [step for start in starts for step in range(max(0, start), min(max(0, start) + period, total))]


def dropout_at(config: PretrainConfig, step: int) -> list[float]:
    """p(l, t) of every layer."""
    return dropout_probabilities(config.layer_dropout, step, config.model.n_layers, config.train.steps)


def weights_at(config: PretrainConfig, step: int) -> list[float]:
    """e~(t, l) of every layer, 0 where its exit is not trained."""
    return mean_weights(config, [step])


def mean_weights(config: PretrainConfig, steps: Sequence[int]) -> list[float]:
    """Mean over steps of e~(t, l), for every layer."""
    return mean_weights_of(config.early_exit, steps, config.model.n_layers, config.train.steps)


def facts_of(config: PretrainConfig, world_size: int) -> Facts:
    """All of it; `config` has its local_batch_size and precision filled in."""
    model, seq_len, steps = config.model, config.train.seq_len, sampled_steps(config)
    n_exits = [len(exit_weights(config.early_exit, t, model.n_layers, config.train.steps)) for t in steps]
    mean_exits = sum(n_exits) / len(steps)
    again = config.activation_checkpoint.mode is Recompute.full
    return Facts(
        parameters=n_parameters(model),
        tokens=config.train.steps * config.train.global_batch_size * seq_len,
        flops=Flops(
            mean=mean_flops(config, steps),
            heads=(1 + BACKWARD) * mean_exits * head_flops(model),
            plain=plain_flops(model, seq_len),
            executed=mean_flops(config, steps, again),
            plain_executed=plain_flops(model, seq_len, again),
        ),
        mean_exits=mean_exits,
        most_exits=max(n_exits),
        memory=memory_per_gpu(config, world_size, max(n_exits)),
        communication=collectives(config, world_size, mean_work(config, steps)),
        plain_communication=collectives(config, world_size, plain_work(model)),
    )


def tokens_per_second(tokens: int, days: float) -> float:
    """Needed to see all tokens in so many days."""
    return tokens / (days * DAY)


def break_even(spent: float, parameters: int, speedup: float) -> float:
    """Generated tokens after which a speed-up has saved as many FLOPs as were spent; 0 if none were.

    Autoregressive decoding costs about 2 * parameters a token. Self-speculation saves time rather than operations: the
    share of the time that it saves, 1 - 1/speedup, is taken as a share of that cost.
    """
    return max(0.0, spent) / (2 * parameters * (1 - 1 / speedup))
