"""What a training step reports: names, units and reductions. Takes the place of torchtitan's MetricsProcessor.

train/objective           weighted loss over the active exits, mean over the step's tokens
train/loss/exit_03        cross entropy (nats per token) of an exit, mean over the steps since the last line in which it
                          was active; every checkpoint's step has a line, so that a continued run begins with it
train/divergence/exit_03  under distillation, KL(p_L^tau || q_x^tau) of an exit (nats per token), as above
train/gradient_cosine/..  of exits and last layer (train/monitoring/gradient_cosine.py), where it is asked for
train/grad_norm           before clipping
train/bad_steps           steps of the run so far whose update was skipped (train/resilience/bad_steps.py)
train/lr                  learning rate of the step
train/tokens              seen so far, all ranks
train/tokens_per_second   all ranks, since the last line, without validation and checkpoints
train/data_wait_fraction  share of that time spent waiting for data, on rank 0
train/memory_gib          peak memory on the accelerator, where there is one

A skipped step has a row of its own: bad_step/objective, bad_step/loss/exit_12 and bad_step/grad_norm, as far as they
are finite. Its loss is in no other.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torchtitan.components.metrics import MetricsProcessor
from tqdm import tqdm

from conf.progress import duration
from models.exits import exit_name
from train.monitoring.exit_losses import ExitLosses
from train.monitoring.sinks import Sink

logger = logging.getLogger(__name__)


class LayerSkipMetrics(MetricsProcessor):
    """Collects a step's metrics; rank 0 writes them to the console and to the sinks."""

    @dataclass(kw_only=True, slots=True)
    class Config(MetricsProcessor.Config):
        """torchtitan's options; declared anew so that they build this class."""

    def should_log(self, step: int) -> bool:
        """Whether a step has a line, whatever else happens in it."""
        return step in (1, self.total_steps) or step % self.config.log_freq == 0

    def attach(self, sinks: list[Sink], first_step: int, total_steps: int) -> None:
        """Say where metrics go and which steps this process runs."""
        self.sinks, self.first_step, self.total_steps = sinks, first_step, total_steps
        self.started = time.perf_counter()
        self.exit_status = 1
        """What W&B is told when the sinks are closed: 1 until the run has come to an end that is none of an error."""
        self.exit_losses, self.divergences = ExitLosses(), ExitLosses()
        visible = dist.get_rank() == 0
        self.gradient_cosine: dict[str, float] = {}
        """Of the last step since the line before that measured it."""
        self.bar = tqdm(
            total=total_steps, initial=first_step, unit="step", dynamic_ncols=True, disable=None if visible else True
        )

    def begin_step(self) -> None:
        """What is added from now on belongs to another optimizer step."""
        self.exit_losses.begin_step()
        self.divergences.begin_step()

    def add(self, layers: Sequence[int], parts: Mapping[str, torch.Tensor]) -> None:
        """Add what the loss gives beside itself of a micro-batch: [X] "exit_losses", and "divergences" if any."""
        self.exit_losses.add(layers, parts["exit_losses"])
        if "divergences" in parts:
            self.divergences.add(layers[:-1], parts["divergences"][:-1])

    def accept_step(self) -> None:
        """Count this step in what is reported."""
        self.exit_losses.accept_step()
        self.divergences.accept_step()

    def report(self, step: int, step_metrics: dict[str, float], *, accepted: bool) -> None:
        """Write the line of a step. All ranks call it.

        Args:
            step: its number, from 1.
            step_metrics: train/objective, grad_norm, lr, tokens and bad_steps; of a skipped step, those that hold.
            accepted: whether its update was taken.
        """
        dims = self.parallel_dims
        sharing = dims.get_mesh("loss").get_group() if dims.dp_cp_enabled else None
        by_exit, divergences = self.exit_losses.means(sharing), self.divergences.means(sharing)
        elapsed = time.perf_counter() - self.time_last_log
        ranks = dims.world_size // dims.non_data_parallel_size
        metrics = step_metrics | {
            "train/tokens_per_second": self.ntokens_since_last_log * ranks / elapsed,
            "train/data_wait_fraction": sum(self.data_loading_times) / elapsed,
        }
        metrics |= {f"train/loss/{exit_name(layer + 1)}": loss for layer, loss in by_exit.items()}
        metrics |= self.gradient_cosine
        self.gradient_cosine = {}
        metrics |= {f"train/divergence/{exit_name(layer + 1)}": nats for layer, nats in divergences.items()}
        if (memory := self.device_memory_monitor.get_peak_stats().max_active_gib) > 0:
            metrics["train/memory_gib"] = memory
        self.write(step, metrics)
        deepest = max(by_exit, default=0)
        logger.info(
            "step %d/%d  %s  %s  lr %.2e  %s tokens/s  left %s",
            step,
            self.total_steps,
            f"loss {by_exit[deepest]:.4f} after {deepest + 1} layers" if by_exit else "no step since the last line",
            f"grad {metrics['train/grad_norm']:.2f}" if accepted else "skipped",
            metrics["train/lr"],
            f"{metrics['train/tokens_per_second']:,.0f}",
            duration(self.seconds_left(step)),
        )
        self.reset_clock()

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Send a row to the sinks."""
        for sink in self.sinks:
            sink.write(step, metrics)

    def seconds_left(self, step: int) -> float:
        """At the mean speed of this process so far, validation and checkpoints included."""
        return (time.perf_counter() - self.started) / (step - self.first_step) * (self.total_steps - step)

    def reset_clock(self) -> None:
        """Begin a new interval for speeds, after logging or after work that is not training."""
        self.ntokens_since_last_log = 0
        self.data_loading_times.clear()
        self.time_last_log = time.perf_counter()
        self.device_memory_monitor.reset_peak_stats()

    def close(self) -> None:
        """Close the sinks."""
        self.bar.close()
        for sink in self.sinks:
            sink.close(self.exit_status)
