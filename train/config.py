"""The configuration of a training run: one typed dataclass per section, and the checks that need several of them."""

import math
from dataclasses import dataclass, field
from enum import StrEnum

from omegaconf import MISSING

from data.config import DataConfig
from models.config import ModelConfig
from train.cluster.config import ClusterConfig
from train.precision import Precision
from train.recipe.curriculum import EarlyExitConfig, layers_run
from train.recipe.dropout_schedule import LayerDropoutConfig, check_schedules
from train.recipe.exit_weights import first_step_without_weight
from train.resilience.bad_steps import BadStepsConfig


class Decay(StrEnum):
    """Shape of the learning rate's decay."""

    cosine = "cosine"
    linear = "linear"
    sqrt = "sqrt"


class Recompute(StrEnum):
    """What activation checkpointing recomputes in the backward."""

    none = "none"
    selective = "selective"
    full = "full"


class WandbMode(StrEnum):
    """Where a W&B run goes."""

    offline = "offline"
    """Into the run folder; `wandb sync` uploads it later."""
    online = "online"
    disabled = "disabled"


def _require(holds: bool, key: str, value: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{key}={value}: {allowed}")


@dataclass(kw_only=True)
class TrainConfig:
    """Steps, batches and numerics."""

    steps: int = MISSING
    """Optimizer steps of the whole run, T."""
    seq_len: int = MISSING
    """Tokens in a row."""
    global_batch_size: int = MISSING
    """Rows per optimizer step, over all ranks and micro-batches."""
    epochs: float | None = None
    """Passes over the training data, from which `steps` is counted once the data is there; null: `steps` says it."""
    records_per_step: int | None = None
    """Documents per optimizer step, on average, from which `global_batch_size` is counted once it is known how many a
    row holds; null: `global_batch_size` says it."""
    local_batch_size: int | None = None
    """Rows per rank and micro-batch; null: all of a rank's rows at once, without gradient accumulation."""
    seed: int = 0
    """Seed of the initial weights, the order of the data and the dropped rows."""
    precision: Precision = Precision.auto
    """Number format of the forward and backward pass."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this global norm."""
    log_every: int = 10
    """Steps between two lines of training metrics."""
    loss_chunk_tokens: int = 2048
    """Tokens that go through the LM head at a time, which bounds the logits in memory."""
    compile: bool | None = None
    """torch.compile each block and the loss; null: on GPUs. Blocks are compiled for all rows, and once more when
    fewer are kept; with layer_dropout.sampling=bernoulli also for one alone, at any step, which a warning says."""
    fp8: bool = False
    """Multiply the blocks' matrices in 8-bit floating point, scaled by row (torchtitan's converter, torchao's kernels).
    Needs bf16, a GPU of NVIDIA's compute capability 8.9 or newer and the package torchao; the LM head stays bf16."""
    expandable_segments: bool = True
    """Let the GPU allocator grow its segments, because layer dropout changes the sizes of tensors from step to step
    and fixed segments would leave holes. PYTORCH_ALLOC_CONF in the environment goes before it; a CPU has no use for it.
    """

    def __post_init__(self) -> None:
        for key in ("steps", "seq_len", "global_batch_size", "log_every", "loss_chunk_tokens"):
            _require(getattr(self, key) >= 1, f"train.{key}", getattr(self, key), "must be at least 1")
        _require(self.epochs is None or self.epochs > 0, "train.epochs", self.epochs, "must be null or above 0")
        records = self.records_per_step
        _require(records is None or records >= 1, "train.records_per_step", records, "must be null or at least 1")
        rows = self.local_batch_size
        _require(rows is None or rows >= 1, "train.local_batch_size", rows, "must be null or at least 1")
        _require(self.seed >= 0, "train.seed", self.seed, "must be at least 0")
        _require(self.max_grad_norm > 0, "train.max_grad_norm", self.max_grad_norm, "must be above 0")

    def asked_in_records(self) -> list[str]:
        """What is asked for in records, as `train.KEY=VALUE`: counted when the data has been read."""
        asked = {"epochs": self.epochs, "records_per_step": self.records_per_step}
        return [f"train.{key}={value:g}" for key, value in asked.items() if value is not None]


@dataclass(kw_only=True)
class OptimizerConfig:
    """AdamW. Norm weights are not decayed."""

    lr: float = MISSING
    """Peak learning rate."""
    beta1: float = 0.9
    """Decay of the mean of the gradients."""
    beta2: float = 0.95
    """Decay of the mean of their squares."""
    eps: float = 1e-8
    """Added to the root of the latter."""
    weight_decay: float = 0.1
    """Decoupled weight decay."""

    def __post_init__(self) -> None:
        _require(self.lr > 0, "optimizer.lr", self.lr, "must be above 0")
        for key in ("beta1", "beta2"):
            _require(0 <= getattr(self, key) < 1, f"optimizer.{key}", getattr(self, key), "must be at least 0, below 1")
        _require(self.eps > 0, "optimizer.eps", self.eps, "must be above 0")
        _require(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "must be at least 0")


@dataclass(kw_only=True)
class LRSchedulerConfig:
    """Linear warm-up, an optional plateau, decay."""

    warmup_ratio: float = 0.0
    """Share of the steps that warm up linearly from 0."""
    decay: Decay = Decay.cosine
    """Shape of the decay."""
    decay_ratio: float | None = None
    """Share of the steps that decay, at the end, after a plateau; null: all steps after the warm-up."""
    min_lr_factor: float = 0.1
    """Final learning rate as a share of the peak."""

    def __post_init__(self) -> None:
        warmup, decay = self.warmup_ratio, self.decay_ratio
        _require(0 <= warmup < 1, "lr_scheduler.warmup_ratio", warmup, "must be at least 0 and below 1")
        left = 1 - warmup
        _require(
            decay is None or 0 < decay <= left, "lr_scheduler.decay_ratio", decay, f"must be above 0, at most {left:g}"
        )
        factor = self.min_lr_factor
        _require(0 <= factor <= 1, "lr_scheduler.min_lr_factor", factor, "must lie in 0..1")


@dataclass(kw_only=True)
class ParallelismConfig:
    """FSDP2, replicas of it (HSDP), tensor and context parallelism, on replicate * shard * tensor * context ranks."""

    replicate: int = 1
    """Groups of ranks that hold the same shards."""
    shard: int | None = None
    """Data-parallel ranks that share one copy of the model; null: all that the other degrees leave."""
    tensor: int = 1
    """Ranks that share each matrix and each row's tokens (tensor and sequence parallelism) and see the same rows."""
    context: int = 1
    """Ranks that share each row's tokens (context parallelism), for rows that are too long for one."""
    pipeline: int = 1
    """Must be 1: here to be refused with a reason."""

    def __post_init__(self) -> None:
        _require(self.replicate >= 1, "parallelism.replicate", self.replicate, "must be at least 1")
        _require(self.shard is None or self.shard >= 1, "parallelism.shard", self.shard, "must be null or at least 1")
        _require(self.tensor >= 1, "parallelism.tensor", self.tensor, "must be at least 1")
        _require(self.context >= 1, "parallelism.context", self.context, "must be at least 1")
        _require(
            self.pipeline == 1,
            "parallelism.pipeline",
            self.pipeline,
            "pipeline stages cannot have exits; use parallelism.shard or parallelism.tensor",
        )

    def data_ranks(self, world_size: int) -> int:
        """How many ranks read rows of their own."""
        return world_size // (self.tensor * self.context)


@dataclass(kw_only=True)
class ProfilerConfig:
    """A trace of a few steps by torch's profiler: <run_dir>/profiling/traces/iteration_N/rankR_trace.json.gz, one for
    each rank, for chrome://tracing or ui.perfetto.dev.
    """

    first_step: int | None = None
    """Step of the run that the trace begins with, from 1; the three before it warm the profiler up. null: no trace."""
    n_steps: int = 2
    """Steps in the trace."""

    def __post_init__(self) -> None:
        first = self.first_step
        _require(first is None or first >= 1, "profiler.first_step", first, "must be null or at least 1")
        _require(self.n_steps >= 1, "profiler.n_steps", self.n_steps, "must be at least 1")


@dataclass(kw_only=True)
class ActivationCheckpointConfig:
    """Trade of compute for activation memory."""

    mode: Recompute = Recompute.none
    """What is recomputed."""


@dataclass(kw_only=True)
class CheckpointConfig:
    """DCP checkpoints in <run_dir>/checkpoint/step-N; the last step is always saved."""

    every: int | None = 500
    """Steps between two checkpoints; null: every_minutes alone says when."""
    every_minutes: float | None = None
    """Minutes between two checkpoints, by the clock of rank 0, looked at after each step; null: steps alone count.
    Where both are given, both save."""
    keep: int = 2
    """Newest checkpoints that are kept; 0 keeps all."""
    keep_every: int | None = None
    """Checkpoints of steps that are multiples of this are kept for ever; null: no others than the newest."""
    keep_best: int = 0
    """So many checkpoints with the lowest validation loss of the last layer are kept as well, of those whose step was
    validated: let checkpoint.every be a multiple of validation.every."""
    async_save: bool = False
    """Write in the background while training goes on, on GPUs by way of pinned memory."""
    initial: str | None = None
    """What a new run starts from instead of random weights: a run folder, a checkpoint or a Hugging Face folder.
    model=initial takes its sizes; its tokenizer is taken unless data.tokenizer.path names another."""
    needs_initial: bool = False
    """Whether the recipe is for a model that has been trained: a run without `initial` is refused."""

    def __post_init__(self) -> None:
        every, minutes = self.every, self.every_minutes
        _require(every is None or every >= 1, "checkpoint.every", every, "must be null or at least 1")
        _require(
            minutes is None or 0 < minutes < math.inf, "checkpoint.every_minutes", minutes, "must be null or above 0"
        )
        given = every is not None or minutes is not None
        _require(given, "checkpoint.every", every, "must be given unless checkpoint.every_minutes is")
        for key in ("keep_every", "keep_best"):
            value, least = getattr(self, key), int(key == "keep_every")
            _require(value is None or value >= least, f"checkpoint.{key}", value, f"must be at least {least}")
        keeps = self.keep == 0 or self.keep >= 2
        _require(keeps, "checkpoint.keep", self.keep, "must be 0 (all) or at least 2 (one may be half written)")


@dataclass(kw_only=True)
class ValidationConfig:
    """Loss, perplexity, bits per byte and agreement with the last layer, on held-out text, at every exit."""

    every: int = 500
    """Steps between two validations; the last step is always validated."""
    tokens: int = 131072
    """Held-out tokens of a validation during training, spread over the text; rounded up to whole rows."""
    final_tokens: int | None = None
    """Tokens of held-out text after the last step; null: all of it."""
    exit_layers: list[float] = field(default_factory=list)
    """Exits to validate, in blocks after which to leave, 1..n_layers, or shares of all blocks, below 1; empty: every
    one. The last is always there."""

    def __post_init__(self) -> None:
        _require(self.every >= 1, "validation.every", self.every, "must be at least 1")
        _require(self.tokens >= 1, "validation.tokens", self.tokens, "must be at least 1")
        final = self.final_tokens
        _require(final is None or final >= 1, "validation.final_tokens", final, "must be null or at least 1")

    def layers(self, n_layers: int) -> list[int]:
        """The layers l, ascending, whose exits are validated: those configured and the last."""
        chosen = self.exit_layers or range(1, n_layers + 1)
        return sorted({layers_run(e, n_layers) - 1 for e in chosen} | {n_layers - 1})


@dataclass(kw_only=True)
class WandbConfig:
    """Weights & Biases."""

    mode: WandbMode = WandbMode.offline
    """Where the run goes."""
    project: str = "layerskip"
    """Project of the run."""
    entity: str | None = None
    """User or team; null: the login's default."""
    name: str | None = None
    """Name of the run; null: that of the run folder."""
    group: str | None = None
    """Group of runs that belong together, such as seeds of one recipe; null: none."""
    tags: list[str] = field(default_factory=list)
    """Words to find the run by, of 1 to 64 characters each."""

    def __post_init__(self) -> None:
        for tag in self.tags:
            _require(1 <= len(tag) <= 64, "wandb.tags", tag, "each must have 1 to 64 characters")


@dataclass(kw_only=True)
class PretrainConfig:
    """Everything about a training run. Experiments choose groups and set run-level values of it."""

    recipe: str = MISSING
    """Name of the recipe; part of the run folder."""
    run_dir: str = MISSING
    """Folder of the run: configuration, metrics, checkpoints, plots. The same folder again continues the run."""
    model: ModelConfig = MISSING
    data: DataConfig = MISSING
    layer_dropout: LayerDropoutConfig = MISSING
    early_exit: EarlyExitConfig = MISSING
    train: TrainConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    lr_scheduler: LRSchedulerConfig = MISSING
    parallelism: ParallelismConfig = MISSING
    activation_checkpoint: ActivationCheckpointConfig = MISSING
    profiler: ProfilerConfig = MISSING
    checkpoint: CheckpointConfig = MISSING
    bad_steps: BadStepsConfig = MISSING
    validation: ValidationConfig = MISSING
    wandb: WandbConfig = MISSING
    tensorboard: bool = False
    """Whether the metrics go to <run_dir>/tensorboard as well, for `tensorboard --logdir`."""
    cluster: ClusterConfig = MISSING
    plugins: dict[str, str] = field(default_factory=dict)
    """Filled in: digests of the files that hold the functions of your own which other keys name."""


def _check_ranks(config: PretrainConfig, world_size: int) -> None:
    options, model, train = config.parallelism, config.model, config.train
    degrees = {"replicate": options.replicate, "shard": options.shard or 1}
    degrees |= {"tensor": options.tensor, "context": options.context}
    given = [key for key in degrees if key == "replicate" or (key == "shard" and options.shard) or degrees[key] > 1]
    ranks = math.prod(degrees.values())
    _require(
        world_size % ranks == 0 and (options.shard is None or ranks == world_size),
        " * ".join(f"parallelism.{key}" for key in given),
        ranks,
        f"must {'equal' if options.shard else 'divide'} the number of ranks, {world_size}",
    )
    local, data_ranks = train.local_batch_size or 1, options.data_ranks(world_size)
    _require(
        train.global_batch_size % (local * data_ranks) == 0,
        "train.global_batch_size",
        train.global_batch_size,
        f"must be a multiple of local_batch_size * {'data-parallel ' * (data_ranks < world_size)}ranks"
        f" = {local} * {data_ranks} = {local * data_ranks}",
    )
    for key, size in (
        ("model.n_heads", model.n_heads),
        ("model.n_kv_heads", model.kv_heads),
        ("model.ffn_dim", model.ffn_dim),
    ):
        _require(size % options.tensor == 0, "parallelism.tensor", options.tensor, f"must divide {key}={size}")
    parts = options.tensor * (2 * options.context if options.context > 1 else 1)
    _require(
        train.seq_len % parts == 0,
        "train.seq_len",
        train.seq_len,
        f"must be a multiple of {parts}, with parallelism.tensor={options.tensor} and context={options.context}",
    )


def check_together(config: PretrainConfig, world_size: int) -> None:
    """Raise ValueError, naming the key and what is allowed, for values that are possible alone but not together."""
    model, train, n_layers = config.model, config.train, config.model.n_layers
    model.check_trainable()
    _require(
        train.seq_len <= model.max_seq_len, "train.seq_len", train.seq_len, f"at most max_seq_len={model.max_seq_len}"
    )
    n_tokens = train.steps * train.global_batch_size * train.seq_len
    _require(n_tokens < 2**63, "train.steps", train.steps, f"the run's {n_tokens:,} tokens must be fewer than 2^63")
    _check_ranks(config, world_size)
    trace = config.profiler
    _require(
        trace.first_step is None or trace.first_step + trace.n_steps - 1 <= train.steps,
        "profiler.first_step",
        trace.first_step,
        f"with profiler.n_steps={trace.n_steps} the trace must end by train.steps={train.steps}",
    )
    for exit_layer in config.validation.exit_layers:
        possible = 0 < exit_layer < 1 or (exit_layer in range(1, n_layers + 1))
        _require(possible, "validation.exit_layers", f"{exit_layer:g}", f"must lie in 1..n_layers={n_layers}")
    exits = config.early_exit.exits
    _require(
        exits is None or max(exits) < n_layers, "early_exit.exits", exits, f"must all lie below n_layers={n_layers}"
    )
    check_schedules(config.layer_dropout, n_layers, train.steps)
    idle = first_step_without_weight(config.early_exit, n_layers, train.steps)
    _require(
        idle is None,
        "early_exit.include_last_layer",
        config.early_exit.include_last_layer,
        f"no exit has a weight at step {idle}; set it to true, or another curriculum or e_scale",
    )
    tokenizer = config.data.tokenizer
    _require(
        tokenizer.path is not None or tokenizer.vocab_size <= model.vocab_size,
        "data.tokenizer.vocab_size",
        tokenizer.vocab_size,
        f"at most model.vocab_size={model.vocab_size}",
    )
