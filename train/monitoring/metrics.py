"""What a training step reports: names, units and reductions. Takes the place of torchtitan's MetricsProcessor.

train/objective           weighted loss over the active exits, mean over the step's tokens
train/loss/exit_03        cross entropy (nats per token) of an exit, mean over the steps since the last line in which it
                          was active; every checkpoint's step has a line, so that a continued run begins with it
train/active_exits        exits that have a weight in this step
train/divergence/exit_03  under distillation, KL(p_L^tau || q_x^tau) of an exit (nats per token), as train/loss
train/gradient_cosine/..  of exits and last layer (train/monitoring/gradient_cosine.py), where it is asked for
train/grad_norm           before clipping
train/layer_grad_norm/layer_03
                          of the third block's gradient alone, before clipping; /rest is that of the embedding, the
                          final norm and the LM head. On steps that are multiples of train.log_every
train/bad_steps           steps of the run so far whose update was skipped (train/resilience/bad_steps.py)
train/lr                  learning rate of the step
train/tokens              seen so far, all ranks
train/tokens_per_second   all ranks, since the last line, without validation and checkpoints
train/tokens_per_second_per_device
                          the same, divided by the number of ranks
train/mfu                 model FLOPs utilisation since the last line, 0..1: the FLOPs of the matrix products that the
                          rows, layers and exits of the steps asked for (models/flops.py; nothing for skipped blocks or
                          recomputation), over what the GPUs could have done at their bf16 peak, as torchtitan has it.
                          On GPUs that torchtitan knows; on CPUs there is no such figure, and no metric
train/data_wait_fraction  share of that time spent waiting for data, on rank 0
train/memory_gib          peak memory on the accelerator, where there is one
train/checkpoint_seconds  for how long training has stood still for checkpoints since the last line
train/checkpoint_write_seconds
                          from the beginning of a checkpoint's writing until it was complete, summed over those since
                          the last line; with checkpoint.async_save training goes on meanwhile. The last checkpoint of a
                          process, after which no line follows, is in its log alone

The row of a validation also has the schedules (train/monitoring/schedule.py), which are functions of the configuration
and the step and would double the size of metrics.jsonl if every line had them:

train/dropout/layer_03    p(l, t), with which a row skips the third block in this step
train/exit_weight/exit_03 e~(t, l), mean over the steps since the last validation, the last 1000 at most

A skipped step has a row of its own: bad_step/objective, bad_step/loss/exit_12 and bad_step/grad_norm, as far as they
are finite. Its loss is in no other.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torchtitan.components.metrics import MetricsProcessor
from tqdm import tqdm

from conf.progress import duration
from models.exits import exit_name
from train.monitoring.checkpoint_clock import CheckpointClock
from train.monitoring.exit_losses import ExitLosses
from train.monitoring.layer_gradients import LayerGradients
from train.monitoring.sinks import Sink
from train.monitoring.wandb_sink import WandbSink

logger = logging.getLogger(__name__)

A100_FLOPS = 312e12


class LayerSkipMetrics(MetricsProcessor):
    """Collects a step's metrics; rank 0 writes them to the console and to the sinks."""

    @dataclass(kw_only=True, slots=True)
    class Config(MetricsProcessor.Config):
        """torchtitan's options; declared anew so that they build this class."""

    def should_log(self, step: int) -> bool:
        """Whether a step has a line, whatever else happens in it."""
        return step in (1, self.total_steps) or step % self.config.log_freq == 0

    def attach(
        self, sinks: list[Sink], first_step: int, total_steps: int, n_layers: int, checkpoints: CheckpointClock
    ) -> None:
        """Say where metrics go, which steps this process runs, of how many layers, and who times its checkpoints."""
        self.sinks, self.first_step, self.total_steps = sinks, first_step, total_steps
        self.started = time.perf_counter()
        self.exit_status = 1
        """What W&B is told when the sinks are closed: 1 until the run has come to an end that is none of an error."""
        self.exit_losses, self.divergences = ExitLosses(), ExitLosses()
        self.layer_gradients = LayerGradients(n_layers)
        self.flops = 0.0
        """Of the matrix products since the last line, on all ranks."""
        self._checkpoints, self._checkpoint_seconds = checkpoints, dict[str, float]()
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
            step_metrics: what is known of the step alone; of a skipped step, what holds.
            accepted: whether its update was taken.
        """
        dims = self.parallel_dims
        sharing = dims.get_mesh("loss").get_group() if dims.dp_cp_enabled else None
        by_exit, divergences = self.exit_losses.means(sharing), self.divergences.means(sharing)
        elapsed = time.perf_counter() - self.time_last_log - self._stood_still()
        tokens_per_second = self.ntokens_since_last_log * (dims.world_size // dims.non_data_parallel_size) / elapsed
        metrics = step_metrics | {
            "train/tokens_per_second": tokens_per_second,
            "train/tokens_per_second_per_device": tokens_per_second / dims.world_size,
            "train/data_wait_fraction": sum(self.data_loading_times) / elapsed,
        }
        monitor = self.device_memory_monitor
        if peak := known_peak(monitor.device.type, monitor.device_name, self.gpu_peak_flops):
            metrics["train/mfu"] = self.flops / (elapsed * dims.world_size * peak)
        metrics |= {f"train/loss/{exit_name(layer + 1)}": loss for layer, loss in by_exit.items()}
        metrics |= self.gradient_cosine
        self.gradient_cosine = {}
        metrics |= {f"train/divergence/{exit_name(layer + 1)}": nats for layer, nats in divergences.items()}
        norms = self.layer_gradients.norms()
        metrics |= (norms if accepted else {}) | self._checkpoint_seconds
        self._checkpoint_seconds = {}
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

    def show(self, rows: list[dict[str, Any]], picture: Path | None) -> None:
        """Have W&B show a validation: all rows so far, and the picture if there is one."""
        for sink in self.sinks:
            if isinstance(sink, WandbSink) and rows:
                sink.show(rows, picture, last=rows[-1]["step"] == self.total_steps)

    def seconds_left(self, step: int) -> float:
        """At the mean speed of this process so far, validation and checkpoints included."""
        return (time.perf_counter() - self.started) / (step - self.first_step) * (self.total_steps - step)

    def reset_clock(self) -> None:
        """Begin a new interval for speeds, after logging or after work that is not training."""
        self.ntokens_since_last_log = 0
        self.flops = 0.0
        self._stood_still()
        self.data_loading_times.clear()
        self.time_last_log = time.perf_counter()
        self.device_memory_monitor.reset_peak_stats()

    def _stood_still(self) -> float:
        """For how many seconds training has stood still for checkpoints since this was last asked."""
        seconds = self._checkpoints.take()
        for key, value in seconds.items():
            self._checkpoint_seconds[key] = value + self._checkpoint_seconds.get(key, 0.0)
        return seconds.get("train/checkpoint_seconds", 0.0)

    def close(self) -> None:
        """Close the sinks, and say what the last checkpoint has taken."""
        self.bar.close()
        self._stood_still()
        if seconds := self._checkpoint_seconds.get("train/checkpoint_seconds"):
            logger.info("the last checkpoint took %.1f s", seconds)
        for sink in self.sinks:
            sink.close(self.exit_status)


def known_peak(device_type: str, name: str, peak_flops: float) -> float | None:
    """FLOPs per second that a device can do in bf16; None for a CPU, and for a GPU that torchtitan does not know.

    Args:
        device_type: torch's, such as cuda.
        name: of the device.
        peak_flops: torchtitan's figure, which is the A100's for every device that it does not know.
    """
    guessed = peak_flops == A100_FLOPS and "A100" not in name
    return None if device_type == "cpu" or guessed else peak_flops
