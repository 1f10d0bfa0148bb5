"""The facts of a run as text."""

from collections.abc import Sequence

from train.config import Recompute
from train.cost.communication import LINES, sent
from train.cost.describe_config import DescribeConfig
from train.cost.facts import (
    DAY,
    Facts,
    break_even,
    dropout_at,
    mean_weights,
    sampled_steps,
    tokens_per_second,
    weights_at,
)
from train.cost.memory import Memory

GIB = 2**30
N_COLUMNS = 5


def description(config: DescribeConfig, world_size: int, facts: Facts) -> str:
    """What `python -m train.describe` prints."""
    return "\n\n".join(
        [
            _run(config, world_size, facts),
            _flops(config, facts),
            _memory(config, world_size, facts.memory),
            _communication(facts),
            _schedules(config),
            _deadline(config, world_size, facts),
            _break_even(config, facts),
        ]
    )


def _run(config: DescribeConfig, world_size: int, facts: Facts) -> str:
    model, train = config.model, config.train
    assert train.local_batch_size is not None
    micro_batches = train.global_batch_size // (train.local_batch_size * world_size)
    to_a_copy = world_size // config.parallelism.replicate
    asked = ", ".join(train.asked_in_records())
    counted = [f"{asked}: steps and rows are those configured; a run counts them when it has read its data"]
    accumulated = "" if micro_batches == 1 else f", gradients of {micro_batches} micro-batches"
    return "\n".join(
        [
            f"{config.recipe}: {model.name}, {model.n_layers} layers, {facts.parameters:,} parameters",
            f"{train.steps:,} steps x {train.global_batch_size:,} rows x {train.seq_len:,} tokens ="
            f" {facts.tokens:,} tokens ({facts.tokens / facts.parameters:.3g} per parameter)",
            *(counted if asked else []),
            f"world size {world_size}, {to_a_copy} to a copy of the model;"
            f" {train.local_batch_size} rows a GPU at a time{accumulated}; {train.precision}",
        ]
    )


def _flops(config: DescribeConfig, facts: Facts) -> str:
    flops, plain_heads = facts.flops, facts.flops.heads / facts.mean_exits
    lines = [
        "FLOPs per token, forward and backward (mean over the steps, expected dropout)",
        f"{'':>12} {'blocks':>10} {'heads':>10} {'all':>10} {'run':>10}",
    ]
    for name, every, heads in (("plain", flops.plain, plain_heads), ("this run", flops.mean, flops.heads)):
        lines.append(f"{name:>12} {every - heads:>10.4g} {heads:>10.4g} {every:>10.4g} {every * facts.tokens:>10.4g}")
    lines.append(
        f"{flops.mean / flops.plain:.4f} of the plain model's, with {facts.mean_exits:.2f} exits a step"
        f" (at most {facts.most_exits})"
    )
    if config.activation_checkpoint.mode is Recompute.full:
        ratio = flops.executed / flops.plain_executed
        lines.append(f"with the recomputation of every block {flops.executed:.4g}, {ratio:.4f} of the plain model's")
    return "\n".join(lines)


def _memory(config: DescribeConfig, world_size: int, memory: Memory) -> str:
    mode = config.activation_checkpoint.mode
    sums = {
        "parameters": memory.parameters,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        f"activations (activation_checkpoint={mode})": memory.activations,
        "loss: exit states": memory.exit_states,
        "loss: head and its gradient": memory.head,
        f"loss: logits of {config.train.loss_chunk_tokens:,} tokens": memory.logits_chunk,
        "loss: the last layer's predictions for as many": memory.teacher_chunk,
        "with all above": memory.in_loss,
        "backward: gradient of the exit states": memory.exit_gradient,
        "backward: gathered, gradients on their way": memory.gathered,
        "backward: one block": memory.one_block,
        "with the first four": memory.in_backward,
        "validation, with the first three": memory.in_validation,
        "peak": memory.peak,
    }
    lines = [f"{name:<46} {size / GIB:>8.3g}" for name, size in sums.items()]
    return "\n".join([f"Memory per GPU in GiB, an estimate (of {world_size})", *lines])


def _communication(facts: Facts) -> str:
    """One row for what is sent, this run's beside the plain model's."""
    ours, plain = facts.communication, facts.plain_communication
    rows = [(line, sent(ours, line), sent(plain, line)) for line in LINES] + [("all", sent(ours), sent(plain))]
    return "\n".join(
        [
            "Communication: GiB that a GPU sends in a step, mean over the steps, and as many that it receives",
            f"{'':<46} {'this run':>8} {'plain':>8}",
            *(f"{line:<46} {a / GIB:>8.3g} {b / GIB:>8.3g}" for line, a, b in rows if a or b or line == "all"),
        ]
    )


def _schedules(config: DescribeConfig) -> str:
    """One row a layer: p(l, t) and e~(t, l) at some steps, and the latter's mean."""
    total = config.train.steps
    steps = sorted({round(i * (total - 1) / (N_COLUMNS - 1)) for i in range(N_COLUMNS)})
    p, weights = [dropout_at(config, t) for t in steps], [weights_at(config, t) for t in steps]
    mean = mean_weights(config, sampled_steps(config))
    width = 9 * len(steps)
    lines = [
        "Layer dropout p(l, t) and weights of the exits e~(t, l), by exit_layer = l + 1 and step t",
        f"{'':>10} {'p(l, t)':^{width}} {'e~(t, l)':^{width}}",
        f"{'exit_layer':>10} {_cells(steps)} {_cells(steps)} {'mean':>8}",
    ]
    for layer in range(config.model.n_layers):
        row_p, row_weights = [f"{column[layer]:.4f}" for column in p], [_weight(column[layer]) for column in weights]
        lines.append(f"{layer + 1:>10} {_cells(row_p)} {_cells(row_weights)} {_weight(mean[layer]):>8}")
    return "\n".join(lines)


def _cells(values: Sequence[object]) -> str:
    return "".join(f"{value!s:>9}" for value in values)


def _weight(value: float) -> str:
    return f"{value:.4f}" if value else "-"


def _deadline(config: DescribeConfig, world_size: int, facts: Facts) -> str:
    days = config.describe.deadline_days
    needed = tokens_per_second(facts.tokens, days)
    teraflops = needed * facts.flops.mean / world_size / 1e12
    seconds = days * DAY / config.train.steps
    return (
        f"To be done in {days:g} days: {needed:,.0f} tokens/s, {needed / world_size:,.0f} a GPU"
        f" ({teraflops:.3g} TFLOP/s a GPU, {seconds:.3g} s a step, {sent(facts.communication) / seconds / 1e9:.3g} GB/s"
        " sent by a GPU)"
    )


def _break_even(config: DescribeConfig, facts: Facts) -> str:
    speedup, flops = config.describe.speedup, facts.flops
    spent = {
        "what LayerSkip adds to this training": (flops.mean - flops.plain) * facts.tokens,
        "the whole run, had the model been used as it was": flops.mean * facts.tokens,
    }
    lines = [f"Break-even at {speedup:g} times plain decoding's speed, at 2 x parameters FLOPs a generated token"]
    for what, cost in spent.items():
        paid = break_even(cost, facts.parameters, speedup)
        after = f"paid back after {paid:.4g} generated tokens" if paid else "nothing to pay back"
        lines.append(f"{what}: {cost:.4g} FLOPs, {after}")
    return "\n".join(lines)
