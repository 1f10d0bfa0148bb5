"""What a GPU sends in a training step: the collectives of FSDP2, its replicas, tensor and context parallelism.

Units that FSDP gathers and reduces as one: the embedding, each block, the final norm with the head (tied: with the
embedding too). In each micro-batch

    embedding   gathered in the forward, and in the backward by FSDP's prefetch, although no gradient needs it
    block       gathered in the forward, freed, gathered again in the backward; not at all if no row passes through it
    head        gathered once for all exits and chunks, kept until the norm's backward
    gradients   of each unit reduced and scattered once, in fp32, for all exits and chunks together

Activation checkpointing recomputes a block while it is gathered for its backward: it adds nothing here. torchtitan
reduces gradients after every micro-batch, so accumulation costs as many bytes as it has micro-batches.

Parameters are gathered in the precision of the forward, each one's first dimension padded to a multiple of the ranks.
With replicas (HSDP), ranks that have the same shard sum its gradients in fp32. The gradient norm is a number for each
gradient. Tensor parallelism (with its sequence parallelism) gathers and scatters activations of the rows that are
kept: before and after attention and feed-forward, forward and backward, and the exit states whole. Context parallelism
gathers keys and values.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from models.config import ModelConfig
from models.row_sampling import Sampling
from train.config import PretrainConfig, Recompute
from train.cost.memory import FP32
from train.precision import Precision
from train.recipe.dropout_schedule import dropout_probabilities
from train.recipe.exit_weights import exit_weights


class Kind(StrEnum):
    """What a collective does."""

    all_gather = "all_gather"
    reduce_scatter = "reduce_scatter"
    all_reduce = "all_reduce"


@dataclass(frozen=True)
class Collective:
    """Collectives of one kind and size, in a step."""

    what: str
    """For whom: a line of train.describe."""
    kind: Kind
    ranks: int
    n_bytes: float
    """Of the whole tensor: what each rank has after a gathering, or before a reduction."""
    count: float
    """How many in a step; a mean where rows are dropped at random."""

    @property
    def sent(self) -> float:
        """Bytes that a GPU sends in a ring, and as many that it receives; no algorithm needs less."""
        twice = 2 if self.kind is Kind.all_reduce else 1
        return self.count * twice * self.n_bytes * (self.ranks - 1) / self.ranks


@dataclass(frozen=True)
class Work:
    """What of the model runs in a micro-batch."""

    blocks: float
    """Blocks through which at least one row passes."""
    rows: float
    """Sum over the blocks of the share of rows that pass."""
    exits: float


PARAMETERS, GRADIENTS = "parameters gathered", "gradients reduced and scattered"
REPLICAS, NORM = "gradients summed over replicas", "gradient norm"
TENSOR, CONTEXT = "tensor parallelism: activations", "context parallelism: keys and values"
LINES = (PARAMETERS, GRADIENTS, REPLICAS, TENSOR, CONTEXT, NORM)


def chance_of_no_row(p: float, n_rows: int, sampling: Sampling) -> float:
    """Probability that all rows of a micro-batch skip a layer, which each skips with probability p."""
    if sampling is Sampling.stratified:
        return max(0.0, p * n_rows - (n_rows - 1))
    return float(p**n_rows)


def work_at(config: PretrainConfig, step: int) -> Work:
    """What runs in step t, in expectation over the dropped rows."""
    n_layers, total = config.model.n_layers, config.train.steps
    exits = list(exit_weights(config.early_exit, step, n_layers, total))
    rows, dropout = config.train.local_batch_size or 1, config.layer_dropout
    p = dropout_probabilities(dropout, step, n_layers, total)[: exits[-1] + 1]
    return Work(
        blocks=sum(1 - chance_of_no_row(p_l, rows, dropout.sampling) for p_l in p),
        rows=sum(1 - p_l for p_l in p),
        exits=len(exits),
    )


def mean_work(config: PretrainConfig, steps: Iterable[int]) -> Work:
    """Mean over steps."""
    works = [work_at(config, step) for step in steps]
    n = len(works)
    return Work(sum(w.blocks for w in works) / n, sum(w.rows for w in works) / n, sum(w.exits for w in works) / n)


def plain_work(model: ModelConfig) -> Work:
    """What runs without layer dropout and early exits."""
    return Work(model.n_layers, model.n_layers, 1)


def block_shapes(model: ModelConfig, tensor: int) -> list[tuple[int, int]]:
    """Rows and columns of a block's parameters on a rank of tensor parallelism, norms first."""
    kv_dim = model.kv_heads * model.head_dim
    attention = [((model.dim + 2 * kv_dim) // tensor, model.dim), (model.dim, model.dim // tensor)]
    feed_forward = [(model.ffn_dim // tensor, model.dim)] * 2 + [(model.dim, model.ffn_dim // tensor)]
    return [(model.dim, 1)] * 2 + attention + feed_forward


def padded(shapes: Iterable[tuple[int, int]], ranks: int) -> int:
    """Numbers in a unit's parameters, the rows of each padded to a multiple of the ranks that share them."""
    return sum(-(-rows // ranks) * ranks * columns for rows, columns in shapes)


def collectives(config: PretrainConfig, world_size: int, work: Work) -> list[Collective]:
    """All of a step; `config` has its local_batch_size and precision filled in."""
    options, train = config.parallelism, config.train
    assert train.local_batch_size is not None
    micro_batches = train.global_batch_size // (train.local_batch_size * options.data_ranks(world_size))
    found = [*_of_parameters(config, world_size, work), *_of_activations(config, work)]
    every = [Collective(c.what, c.kind, c.ranks, c.n_bytes, c.count * micro_batches) for c in found if c.ranks > 1]
    return every + _of_the_norm(config, world_size, work)


def _of_parameters(config: PretrainConfig, world_size: int, work: Work) -> list[Collective]:
    model, options = config.model, config.parallelism
    c = 2 if config.train.precision is Precision.bf16 else FP32
    shards = world_size // (options.replicate * options.tensor)
    matrix, norm = (-(-model.vocab_size // options.tensor), model.dim), (model.dim, 1)
    block, head = padded(block_shapes(model, options.tensor), shards), padded([matrix], shards)
    unit = padded([matrix, norm], shards)
    # Of every unit: how often its parameters are gathered, and the gradients that are reduced.
    if model.tie_embeddings:
        gathered = [(unit, 1.0), (block, 2 * work.blocks)]
        reduced = [(head, 1.0), (unit, 1.0), (block, work.blocks)]
    else:
        gathered = [(head, 2.0), (unit, 1.0), (block, 2 * work.blocks)]
        reduced = [(head, 2.0), (padded([norm], shards), 1.0), (block, work.blocks)]
    return [
        *(Collective(PARAMETERS, Kind.all_gather, shards, c * size, count) for size, count in gathered),
        *(Collective(GRADIENTS, Kind.reduce_scatter, shards, FP32 * size, count) for size, count in reduced),
        *(
            Collective(REPLICAS, Kind.all_reduce, options.replicate, FP32 * size / shards, count)
            for size, count in reduced
        ),
    ]


def _of_activations(config: PretrainConfig, work: Work) -> list[Collective]:
    model, train, options = config.model, config.train, config.parallelism
    assert train.local_batch_size is not None
    c = 2 if train.precision is Precision.bf16 else FP32
    n = train.local_batch_size * train.seq_len // options.context
    mode = config.activation_checkpoint.mode
    # What is recomputed is gathered again; selective checkpointing keeps what a reduction has given.
    gathers, scatters = 2 * (mode is not Recompute.none), 2 * (mode is Recompute.full)
    states, kv = c * n * model.dim, c * n * options.context * model.kv_heads * model.head_dim // options.tensor
    chunks = work.exits * -(-n // train.loss_chunk_tokens)
    statistics = FP32 * min(n, train.loss_chunk_tokens)
    return [
        Collective(TENSOR, Kind.all_gather, options.tensor, states, (4 + gathers) * work.rows + 1),
        Collective(TENSOR, Kind.reduce_scatter, options.tensor, states, (4 + scatters) * work.rows + 1),
        Collective(TENSOR, Kind.all_gather, options.tensor, states * work.exits, 1),
        Collective(TENSOR, Kind.reduce_scatter, options.tensor, states * work.exits, 1),
        Collective(TENSOR, Kind.all_reduce, options.tensor, statistics, 3 * chunks),
        Collective(TENSOR, Kind.all_reduce, options.tensor, c * model.dim, 2 * work.blocks + 1),  # norms' gradients
        Collective(CONTEXT, Kind.all_gather, options.context, kv, (2 + gathers) * work.rows),
        Collective(CONTEXT, Kind.reduce_scatter, options.context, kv, 2 * work.rows),
    ]


def _of_the_norm(config: PretrainConfig, world_size: int, work: Work) -> list[Collective]:
    model, options = config.model, config.parallelism
    n = work.blocks * len(block_shapes(model, 1)) + 1 + (1 if model.tie_embeddings else 2)
    shards = world_size // (options.replicate * options.tensor)
    groups: Sequence[int] = [g for g in (shards, options.tensor) if g > 1]
    return [Collective(NORM, Kind.all_reduce, ranks, FP32 * n, 1) for ranks in groups]


def sent(found: Iterable[Collective], what: str | None = None) -> float:
    """Bytes that a GPU sends in a step, in all or for one of the lines of train.describe."""
    return sum(c.sent for c in found if what in (None, c.what))
