"""The arms of train.benchmark: plain torchtitan, and ours with layer dropout and exits; each in its own process."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torchtitan.components.loss import ChunkedLossWrapper
from torchtitan.config import CompileConfig
from torchtitan.distributed.activation_checkpoint import FullAC
from torchtitan.models.llama3.model import Llama3Model

from models.flops import flops_per_token
from models.layer_dropout import kept_rows
from models.spec import llama_config
from train.config import Recompute
from train.cost.benchmark_config import TrainBenchmarkConfig
from train.cost.device import synchronise
from train.cpu import prepare_torchtitan
from train.recipe.chunk_losses import SoftTargets
from train.recipe.dropout_schedule import LayerDropoutConfig, dropout_probabilities
from train.recipe.early_exit_loss import EarlyExitLoss
from train.recipe.exit_weights import layer_weight

PLAIN = "plain"


@dataclass(frozen=True)
class Arm:
    """What is trained."""

    name: str
    """plain, LD, EE, EE+KL or LD+EE."""
    n_exits: int = 1
    p_max: float = 0.0
    taught: bool = False
    """Whether the exits learn from the last layer's distribution, as distillation lets them."""


@dataclass(frozen=True)
class Step:
    """What one forward and backward cost."""

    seconds: float
    cpu_seconds: float
    flops: float
    """FLOPs of the rows that were really kept, per token of the batch."""


def arms(config: TrainBenchmarkConfig) -> list[Arm]:
    """Plain first, then LD, EE, the same exits taught by the last layer, and LD+EE."""
    n_layers = config.model.n_layers
    exits = config.n_exits or sorted({1, 2, math.ceil(n_layers / 4), n_layers})
    both = exits[min(1, len(exits) - 1)]
    return [
        Arm(PLAIN),
        *(Arm("LD", p_max=p) for p in config.p_max),
        *(Arm("EE", n_exits=n) for n in exits),
        *([Arm("EE+KL", n_exits=both, taught=True)] if both > 1 else []),
        *(Arm("LD+EE", n_exits=both, p_max=p) for p in config.p_max),
    ]


def exit_layers(n_exits: int, n_layers: int) -> tuple[int, ...]:
    """So many layers l, evenly spaced, the last among them."""
    return tuple(round((i + 1) * n_layers / n_exits) - 1 for i in range(n_exits))


class Runner:
    """One arm's model, in this process."""

    def __init__(self, config: TrainBenchmarkConfig, arm: Arm, recompute: bool, device: torch.device) -> None:
        self.config, self.arm, self.recompute, self.device = config, arm, recompute, device
        self.sampling = config.sampling.where(compiled=config.compile)
        self.exits = exit_layers(arm.n_exits, config.model.n_layers)
        self.dropout = LayerDropoutConfig(p_max=arm.p_max, sampling=self.sampling)
        torch.manual_seed(0)
        size = llama_config(config.model)
        if arm.name == PLAIN:
            size = Llama3Model.Config(**{f.name: getattr(size, f.name) for f in fields(Llama3Model.Config)})
        self.model = size.build()
        self.model.init_states()
        self.model.to(device).train()
        self.model._skip_lm_head = True
        if recompute:
            FullAC.Config().build(dump_folder="").apply(self.model)
        compiled = CompileConfig(enable=config.compile)
        if config.compile:
            for block in self.model.layers.values():
                block.compile(backend=compiled.backend, fullgraph=True)
        self.loss = self._loss(compiled)
        self.loss.set_lm_head(self.model.lm_head)
        shape = (config.batch_size, config.seq_len + 1)
        tokens = torch.randint(config.model.vocab_size, shape).to(device)  # the same on every device
        self.last_loss = torch.tensor(float("nan"))
        """Of the last step."""
        self.inputs, self.labels = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def _loss(self, compiled: CompileConfig) -> Any:
        if self.arm.name == PLAIN:
            return ChunkedLossWrapper.Config(num_chunks=self.config.n_chunks).build(compile_config=compiled)
        return EarlyExitLoss.Config(chunk_tokens=self.config.loss_chunk_tokens).build(compile_config=compiled)

    def step(self, t: int) -> Step:
        """A forward and backward with the rows of step t."""
        self.model.zero_grad(set_to_none=True)
        work, flops = self._work(t)
        synchronise(self.device.type)
        begun, cpu = time.perf_counter(), time.process_time()
        work()
        synchronise(self.device.type)
        return Step(time.perf_counter() - begun, time.process_time() - cpu, flops)

    def _work(self, t: int) -> tuple[Callable[[], None], float]:
        n_layers, rows = self.config.model.n_layers, self.config.batch_size
        p = dropout_probabilities(self.dropout, 0, n_layers, 1)
        kept = [kept_rows(0, t, 0, i, p[i], rows, self.sampling) for i in range(n_layers)]
        share = [1.0 if k is None else len(k) / rows for k in kept]
        flops = flops_per_token(self.config.model, self.config.seq_len, share, self.exits, self.recompute)
        plan = [None if k is None else k.to(self.device) for k in kept]
        n_tokens = torch.tensor(float(self.labels.numel()), device=self.device)
        weights = [layer_weight(layer, n_layers, 1.0) for layer in self.exits]

        def work() -> None:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
                if self.arm.name == PLAIN:
                    loss, _ = self.loss(self.model(self.inputs), self.labels, n_tokens)
                else:
                    states = self.model(self.inputs, exits=self.exits, kept_rows=plan)
                    loss, _ = self.loss(
                        states,
                        self.labels,
                        n_tokens,
                        weights=tuple(w / sum(weights) for w in weights),
                        soft_targets=SoftTargets(kl_share=1.0, temperature=1.0) if self.arm.taught else None,
                    )
                    del states
                loss.backward()
            self.last_loss = loss.detach()

        return work, flops

    def peak_bytes(self, t: int) -> int:
        """The most memory that is allocated at a time in a step, above the weights."""
        self.model.zero_grad(set_to_none=True)
        work, _ = self._work(t)
        if self.device.type == "cuda":
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            work()
            return torch.cuda.max_memory_allocated() - before
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            work()
        events = sorted(
            (e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()
        )
        now = peak = 0
        for event in events:
            now += event.nbytes()
            peak = max(peak, now)
        return peak


def serve(connection: Any, config: TrainBenchmarkConfig, arm: Arm, recompute: Recompute, device: str) -> None:
    """Be the process of an arm: answer ("step", t) and ("memory", t) until None comes."""
    prepare_torchtitan()
    if config.machine.threads is not None:
        torch.set_num_threads(config.machine.threads)
    runner = Runner(config, arm, recompute is Recompute.full, torch.device(device))
    while (asked := connection.recv()) is not None:
        what, t = asked
        connection.send(runner.step(t) if what == "step" else runner.peak_bytes(t))
