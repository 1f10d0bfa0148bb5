"""Training steps of a size, plain against LD, EE and LD+EE, as the trainer makes them: FSDP, mixed precision, AdamW.

The four share one model and one compiled code, and take turns, so that what changes with the time of day or the heat of
the chip changes all of them.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from hydra import compose, initialize_config_module
from torchtitan.distributed import ParallelDims
from torchtitan.distributed.utils import clip_grad_norm_, set_spmd_backend
from torchtitan.tools.utils import get_peak_flops

from conf.strict import register_schema
from models.flops import flops_per_token
from models.layer_dropout import kept_rows
from train.config import PretrainConfig
from train.cost.device import synchronise
from train.cost.memory import memory_per_gpu
from train.cpu import prepare_torchtitan
from train.monitoring.metrics import known_peak
from train.recipe.chunk_losses import soft_targets
from train.recipe.dropout_schedule import dropout_probabilities
from train.recipe.exit_weights import exit_weights
from train.resolve import resolve

ARMS = {
    "plain": ["layer_dropout=none", "early_exit=none"],
    "LD": ["layer_dropout=exp_02", "early_exit=none"],
    "EE": ["layer_dropout=none", "early_exit=rotational"],
    "LD+EE": ["layer_dropout=exp_02", "early_exit=rotational"],
}
"""The paper's for continual pretraining, with twice its dropout: constant in time, so that steps are alike."""


@dataclass(frozen=True)
class TrainingRow:
    """What a step of an arm takes. The keys of the result are the names of the fields."""

    arm: str
    model: str
    recompute: str
    compiled: bool
    precision: str
    seq_len: int
    rows: int
    exits: float
    """Mean over the steps."""
    tokens_per_second: float
    """Of whole steps with the update; median."""
    speed_over_plain: float
    """Median of the pairs with the plain step of the same round."""
    flops_over_plain: float
    """What matrix products alone would give: plain's FLOPs over the arm's."""
    mfu: float | None
    """FLOPs of the model (without recomputation) per second over the GPU's bf16 peak; None where that is not known."""
    peak_gib: float | None
    """Allocated at a time, parameters and optimizer included; None on a CPU."""
    expected_gib: float
    """The same by train.describe's formulas (without the parts that only other ranks need)."""
    first_step_seconds: float
    """With what is compiled in it."""
    loss: float
    """Of the last step: a finite number says that all of it worked."""


def training(
    *,
    device: str,
    model: str,
    seq_len: int,
    rows: int,
    rounds: int,
    warmup: int,
    recompute: str,
    compiled: bool,
    precision: str,
) -> list[dict[str, Any]]:
    """The rows of the four arms."""
    prepare_torchtitan()
    base = [
        f"model={model}",
        f"train.seq_len={seq_len}",
        f"train.global_batch_size={rows}",
        f"train.compile={str(compiled).lower()}",
        f"train.precision={precision}",
        f"activation_checkpoint={recompute}",
        "layer_dropout.sampling=stratified",
    ]
    configs = {name: _config([*base, *words]) for name, words in ARMS.items()}
    with _one_rank(device):
        bench = _Bench(configs["LD+EE"], device)
        taken: dict[str, list[_Taken]] = {name: [] for name in configs}
        for t in range(warmup + rounds):
            for name, config in configs.items():
                taken[name].append(bench.step(config, t))
        peak = {name: bench.peak_gib(config, warmup + rounds) for name, config in configs.items()}
    figures = _Figures(configs, taken, warmup)
    return [asdict(figures.row(name, device, peak[name])) for name in configs]


def _config(overrides: list[str]) -> PretrainConfig:
    register_schema("pretrain", PretrainConfig)
    with initialize_config_module("conf", version_base="1.3"):
        return resolve(compose("pretrain", overrides), 1)


@contextmanager
def _one_rank(device: str) -> Iterator[None]:
    """A process group of this process alone."""
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost"}
    store = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group("nccl" if device == "cuda" else "gloo", store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@dataclass(frozen=True)
class _Taken:
    """One step."""

    seconds: float
    flops: float
    """Of the rows that were kept, of the whole step."""
    n_exits: int
    loss: float


class _Bench:
    """The model, loss and optimizer of a run, without its data and checkpoints."""

    def __init__(self, config: PretrainConfig, device: str) -> None:
        from train.titan import trainer_config

        self.device = device
        corpus: Any = SimpleNamespace(tokenizer=SimpleNamespace(vocab_size=config.model.vocab_size))
        titan = trainer_config(config, corpus)
        set_spmd_backend(titan.parallelism.spmd_backend)
        spec = titan.model_spec
        spec.model.update_from_config(config=titan)
        with torch.device("meta"):
            model = spec.model.build()
        self.model = spec.parallelize_fn(
            model,
            parallel_dims=ParallelDims.from_config(titan.parallelism, 1),
            training=titan.training,
            parallelism=titan.parallelism,
            compile_config=titan.compile,
            ac_config=titan.activation_checkpoint,
            dump_folder="",
        )
        self.model.to_empty(device=device)
        torch.manual_seed(0)
        with torch.no_grad():
            self.model.init_weights(buffer_device=None)
        self.model.train()
        self.model._skip_lm_head = True
        self.loss = titan.loss.build(compile_config=titan.compile)
        self.loss.set_lm_head(self.model.lm_head)
        self.optimizers = titan.optimizer.build(model_parts=[self.model])
        shape = (config.train.global_batch_size, config.train.seq_len + 1)
        tokens = torch.randint(config.model.vocab_size, shape).to(device)
        self.inputs, self.labels = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def step(self, config: PretrainConfig, t: int) -> _Taken:
        """Forward, loss, backward, clipping and update, of step t of such a run."""
        rows, n_layers, total = config.train.global_batch_size, config.model.n_layers, config.train.steps
        weights = exit_weights(config.early_exit, t, n_layers, total)
        p = dropout_probabilities(config.layer_dropout, t, n_layers, total)
        kept = [
            kept_rows(config.train.seed, t, 0, layer, p[layer], rows, config.layer_dropout.sampling)
            for layer in range(n_layers)
        ]
        share = [1.0 if k is None else len(k) / rows for k in kept]
        flops = self.labels.numel() * flops_per_token(config.model, config.train.seq_len, share, tuple(weights))
        on_device = [k if k is None else k.to(self.device) for k in kept]
        soft = soft_targets(config.early_exit.distillation, t, total, self.labels, on_device)
        synchronise(self.device)
        begun = time.perf_counter()
        self.optimizers.zero_grad()
        states = self.model(self.inputs, exits=tuple(weights), kept_rows=on_device)
        n_tokens = torch.tensor(float(self.labels.numel()), device=self.device)
        loss, _ = self.loss(states, self.labels, n_tokens, weights=tuple(weights.values()), soft_targets=soft)
        del states
        loss.backward()
        clip_grad_norm_(list(self.model.parameters()), config.train.max_grad_norm, foreach=True)
        self.optimizers.step()
        synchronise(self.device)
        return _Taken(time.perf_counter() - begun, flops, len(weights), float(loss.detach()))

    def peak_gib(self, config: PretrainConfig, t: int) -> float | None:
        """The most that is allocated at a time in a step."""
        if self.device != "cuda":
            return None
        torch.cuda.reset_peak_memory_stats()
        self.step(config, t)
        return torch.cuda.max_memory_allocated() / 2**30


class _Figures:
    """From steps to rows."""

    def __init__(self, configs: dict[str, PretrainConfig], taken: dict[str, list[_Taken]], warmup: int) -> None:
        self.configs, self.taken, self.warmup = configs, taken, warmup

    def row(self, name: str, device: str, peak_gib: float | None) -> TrainingRow:
        """That of an arm."""
        config, steps, plain = self.configs[name], *(self.taken[n][self.warmup :] for n in (name, "plain"))
        n_tokens = config.train.global_batch_size * config.train.seq_len
        hardware = torch.cuda.get_device_name() if device == "cuda" else "cpu"
        peak = known_peak(device, hardware, get_peak_flops(hardware)) if device == "cuda" else None
        most = max(step.n_exits for step in steps)
        return TrainingRow(
            arm=name,
            model=config.model.name,
            recompute=config.activation_checkpoint.mode.value,
            compiled=bool(config.train.compile),
            precision=config.train.precision.value,
            seq_len=config.train.seq_len,
            rows=config.train.global_batch_size,
            exits=sum(step.n_exits for step in steps) / len(steps),
            tokens_per_second=median(n_tokens / step.seconds for step in steps),
            speed_over_plain=median(p.seconds / s.seconds for p, s in zip(plain, steps, strict=True)),
            flops_over_plain=sum(p.flops for p in plain) / sum(s.flops for s in steps),
            mfu=median(step.flops / step.seconds for step in steps) / peak if peak else None,
            peak_gib=peak_gib,
            expected_gib=memory_per_gpu(config, 1, most).peak / 2**30,
            first_step_seconds=self.taken[name][0].seconds,
            loss=steps[-1].loss,
        )
