"""PretrainConfig -> torchtitan's Trainer.Config, section by section. Alone knows torchtitan's field names."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.optimizer import LRSchedulersContainer, OptimizersContainer, ParamGroupConfig
from torchtitan.components.quantization import Float8LinearConverter
from torchtitan.components.tokenizer import BaseTokenizer
from torchtitan.config.configs import CommConfig, CompileConfig, DebugConfig, ParallelismConfig, TrainingConfig
from torchtitan.distributed.activation_checkpoint import ActivationCheckpointing, FullAC, SelectiveAC
from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.tools.profiler import Profiler

from data.batches.loader import Loader
from data.config import DataConfig
from data.corpus import Corpus
from data.tokenizers.tokenizer import Tokenizer
from data.training import training_loader
from models.spec import model_spec
from models.storage.checkpoints import CHECKPOINTS
from train.checkpoint import Checkpoints
from train.cluster.heartbeat import MARGIN_SECONDS
from train.config import PretrainConfig, Recompute
from train.monitoring.metrics import LayerSkipMetrics
from train.precision import Precision
from train.recipe.early_exit_loss import EarlyExitLoss
from train.trainer import LayerSkipTrainer

NEVER = 1 << 62
"""A step that no run gets to."""


@dataclass(kw_only=True, slots=True)
class _LoaderConfig(BaseDataLoader.Config):
    """Builds our loader in place of torchtitan's."""

    corpus: Corpus
    data: DataConfig
    seed: int

    def build(self, **kwargs: Any) -> Loader:
        return training_loader(
            self.corpus,
            self.data,
            seq_len=kwargs["seq_len"],
            batch_size=kwargs["local_batch_size"],
            seed=self.seed,
            rank=kwargs["dp_rank"],
            world_size=kwargs["dp_world_size"],
        )

    def to_dict(self) -> dict[str, Any]:
        return {"seed": self.seed}


@dataclass(kw_only=True, slots=True)
class _TokenizerConfig(BaseTokenizer.Config):
    """Hands torchtitan the tokenizer that the corpus was made with."""

    tokenizer: Tokenizer

    def build(self, **_: Any) -> Tokenizer:
        return self.tokenizer

    def to_dict(self) -> dict[str, Any]:
        return {"vocab_size": self.tokenizer.vocab_size}


def _training(config: PretrainConfig) -> TrainingConfig:
    assert config.train.local_batch_size is not None, "filled in by train.resolve"
    return TrainingConfig(
        local_batch_size=config.train.local_batch_size,
        global_batch_size=config.train.global_batch_size,
        seq_len=config.train.seq_len,
        max_norm=config.train.max_grad_norm,
        steps=config.train.steps,
        mixed_precision_param="bfloat16" if config.train.precision is Precision.bf16 else "float32",
        # torchtitan captures forward and backward by default, which would freeze one step's exits and kept rows.
        disable_cuda_graphs=True,
    )


def _parallelism(config: PretrainConfig) -> ParallelismConfig:
    return ParallelismConfig(
        data_parallel_replicate_degree=config.parallelism.replicate,
        data_parallel_shard_degree=config.parallelism.shard or -1,
        tensor_parallel_degree=config.parallelism.tensor,
        context_parallel_degree=config.parallelism.context,
        # In order: rank r has the r-th part of each row, as models.llama.CausalAttention takes it.
        context_parallel_load_balancer=None,
        pipeline_parallel_degree=config.parallelism.pipeline,
        # The default backend's FSDP path needs a newer torch than 2.13.
        spmd_backend="partial_dtensor",
    )


def _optimizer(config: PretrainConfig) -> OptimizersContainer.Config:
    options = config.optimizer
    adamw = {"lr": options.lr, "betas": (options.beta1, options.beta2), "eps": options.eps}
    return OptimizersContainer.Config(
        param_groups=[
            ParamGroupConfig(pattern=r"norm", optimizer_name="AdamW", optimizer_kwargs=adamw | {"weight_decay": 0.0}),
            ParamGroupConfig(
                pattern=r".*", optimizer_name="AdamW", optimizer_kwargs=adamw | {"weight_decay": options.weight_decay}
            ),
        ]
    )


def _lr_scheduler(config: PretrainConfig) -> LRSchedulersContainer.Config:
    return LRSchedulersContainer.Config(
        warmup_steps=round(config.lr_scheduler.warmup_ratio * config.train.steps),
        decay_ratio=config.lr_scheduler.decay_ratio,
        decay_type=config.lr_scheduler.decay.value,
        min_lr_factor=config.lr_scheduler.min_lr_factor,
    )


def _async_mode(asked: bool) -> str:
    """Through pinned memory the copy off a GPU overlaps with training; a CPU's tensors need not be copied off."""
    if not asked:
        return "disabled"
    return "async_with_pinned_mem" if torch.cuda.is_available() else "async"


def _checkpoint(config: PretrainConfig) -> Checkpoints.Config:
    return Checkpoints.Config(
        enable=True,
        folder=CHECKPOINTS,
        interval=config.checkpoint.every or NEVER,
        every_minutes=config.checkpoint.every_minutes,
        keep_latest_k=config.checkpoint.keep,
        keep_every=config.checkpoint.keep_every,
        keep_best=config.checkpoint.keep_best,
        async_mode=_async_mode(config.checkpoint.async_save),
        # The whole state, so that a finished run can be prolonged.
        last_save_model_only=False,
    )


def _activation_checkpoint(config: PretrainConfig) -> ActivationCheckpointing.Config | None:
    match config.activation_checkpoint.mode:
        case Recompute.none:
            return None
        case Recompute.selective:
            return SelectiveAC.Config()
        case Recompute.full:
            return FullAC.Config()


def _profiler(config: PretrainConfig) -> Profiler.Config:
    """Torchtitan counts cycles of waiting, warming up and recording, from step 0 of the run: one cycle."""
    first, n = config.profiler.first_step, config.profiler.n_steps
    if first is None:
        return Profiler.Config()
    return Profiler.Config(
        enable_profiling=True,
        profile_freq=first - 1 + n,
        profiler_warmup=min(3, first - 1),
        profiler_active=n,
        profiler_repeat=1,
    )


def _model_spec(config: PretrainConfig) -> ModelSpec:
    spec = model_spec(config.model)
    if config.train.fp8:
        # The head's weight is gathered, and its gradient added up, by our loss; and 8 bits are too few for its logits.
        fp8 = Float8LinearConverter.Config(filter_fqns=["lm_head"], model_compile_enabled=bool(config.train.compile))
        spec.model = fp8.build().convert(spec.model)
    return spec


def trainer_config(config: PretrainConfig, corpus: Corpus) -> LayerSkipTrainer.Config:
    """Everything torchtitan's Trainer is built from."""
    return LayerSkipTrainer.Config(
        recipe=config,
        corpus=corpus,
        model_spec=_model_spec(config),
        dump_folder=config.run_dir,
        tokenizer=_TokenizerConfig(tokenizer=corpus.tokenizer),
        dataloader=_LoaderConfig(corpus=corpus, data=config.data, seed=config.train.seed),
        loss=EarlyExitLoss.Config(chunk_tokens=config.train.loss_chunk_tokens),
        training=_training(config),
        parallelism=_parallelism(config),
        optimizer=_optimizer(config),
        lr_scheduler=_lr_scheduler(config),
        checkpoint=_checkpoint(config),
        activation_checkpoint=_activation_checkpoint(config),
        # What NCCL's flight recorder leaves after a timeout lies in the run folder itself: a folder would stay empty.
        comm=CommConfig(
            init_timeout_seconds=math.ceil(config.cluster.timeout_seconds + MARGIN_SECONDS),
            train_timeout_seconds=math.ceil(config.cluster.timeout_seconds + MARGIN_SECONDS),
            save_traces_folder=".",
            save_traces_file_prefix="comm_trace_rank_",
        ),
        compile=CompileConfig(enable=bool(config.train.compile)),
        profiler=_profiler(config),
        metrics=LayerSkipMetrics.Config(log_freq=config.train.log_every),
        debug=DebugConfig(seed=config.train.seed, enable_structured_logging=False),
    )
