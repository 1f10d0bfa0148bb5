"""What a LayerSkip step does differently from torchtitan's Trainer; nothing else."""

import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torchtitan.components.optimizer.utils import init_optim_state
from torchtitan.distributed import utils as dist_utils
from torchtitan.trainer import Trainer

from conf.errors import reason
from conf.metrics_file import METRICS, read_metrics
from data.batches.loader import Loader, validation_batches
from data.batches.packing import IGNORE_INDEX
from data.corpus import Corpus
from data.training import keeps_apart, training_rows
from models.exits import exit_name
from models.flops import flops_per_token
from models.layer_dropout import kept_rows
from train.checkpoint import VALIDATION_LOSS, Checkpoints
from train.cluster.agreement import any_rank, cpu_group
from train.cluster.heartbeat import MARGIN_SECONDS
from train.cluster.preemption import Preemption
from train.config import PretrainConfig
from train.errors import TrainingError
from train.monitoring.gradient_cosine import gradient_cosine, gradient_of_last
from train.monitoring.metrics import LayerSkipMetrics
from train.monitoring.plots import plot_perplexity_by_exit
from train.monitoring.report import validation_line
from train.monitoring.schedule import schedule_metrics
from train.monitoring.sinks import open_sinks
from train.monitoring.validation import exit_metrics, exit_sums
from train.recipe.chunk_losses import soft_targets
from train.recipe.dropout_schedule import branch_scale, dropout_probabilities
from train.recipe.exit_weights import exit_weights
from train.resilience.bad_step_report import BadStep
from train.resilience.bad_steps import BadSteps
from train.resilience.finite_state import all_finite
from train.run_dir import BAD_STEPS, goes_on_from

logger = logging.getLogger(__name__)


class Agreed(NamedTuple):
    """What all ranks know of a step."""

    loss: float
    """Weighted over the exits, mean over the step's tokens."""
    exit_layer: int
    """The deepest that is trained in this step."""
    exit_loss: float
    """Its cross entropy."""
    grad_norm: float
    """Before clipping; NaN if it is not finite on any rank."""
    is_time: bool
    """Whether rank 0's clock asks for a checkpoint."""


class LayerSkipTrainer(Trainer):
    """torchtitan's Trainer with layer dropout, the early-exit loss and validation at every exit."""

    metrics_processor: LayerSkipMetrics
    checkpointer: Checkpoints
    dataloader: Loader

    @dataclass(kw_only=True, slots=True)
    class Config(Trainer.Config):
        """torchtitan's configuration, and ours that it was made from."""

        recipe: PretrainConfig
        corpus: Corpus

        def to_dict(self) -> dict[str, Any]:
            """Our configuration: it says everything."""
            return asdict(self.recipe)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.recipe, self.corpus = config.recipe, config.corpus
        self.n_layers, self.total_steps = self.recipe.model.n_layers, self.recipe.train.steps
        self.micro_batch = 0
        self.preemption = Preemption(self.recipe.cluster.save_seconds)
        self.cpu_group = cpu_group(self.recipe.cluster.timeout_seconds + MARGIN_SECONDS)
        self.stopping = False
        initialise_optimizer_state(self.optimizers)
        self.token_bytes = torch.tensor(self.corpus.tokenizer.token_bytes(), device=self.device)
        self.checkpointer.facts = self.checkpoint_facts
        first_step, manifest = self.checkpointer.choose()
        if dist.get_rank() == 0:
            goes_on_from(self.recipe.run_dir, first_step)
        self.bad_steps = BadSteps(self.recipe.bad_steps, manifest.facts.get("bad_steps") if manifest else None)
        self.validation_loss: tuple[int, float | None] = (first_step, None)
        self.metrics_processor.attach(
            open_sinks(self.recipe, first_step) if dist.get_rank() == 0 else [],
            first_step,
            self.total_steps,
            self.n_layers,
            self.checkpointer.clock,
        )
        logger.info(
            "%s: %s parameters, %s layers, on %s x %s; steps %d..%d of %s tokens each",
            self.recipe.model.name,
            f"{sum(p.numel() for p in self.model_parts[0].parameters()):,}",
            self.n_layers,
            self.parallel_dims.world_size,
            self.device.type,
            first_step + 1,
            self.total_steps,
            f"{self.recipe.train.global_batch_size * self.recipe.train.seq_len:,}",
        )

    def train_step(self, data_iterator: Any) -> None:
        """One optimizer step, and validation where it is due: before the checkpoint, which then implies it was done.

        A step whose loss or gradient is bad leaves the weights as they are; all else goes on as after any other.
        """
        self.stopping = self.checkpointer.stopping = any_rank(self.preemption.signal is not None, self.cpu_group)
        if self.stopping:
            logger.info("%s: step %d is the last of this process", self.preemption, self.step)
        self.optimizers.zero_grad()
        lr = next(iter(self.lr_schedulers.get_metrics().values()))
        loss = self.forward_backward(data_iterator)
        parameters = dict(named for part in self.model_parts for named in part.named_parameters())
        if self.metrics_processor.should_log(self.step):
            self.metrics_processor.layer_gradients.measure(parameters.items())
        grad_norm = dist_utils.clip_grad_norm_(parameters.values(), self.recipe.train.max_grad_norm, foreach=True)
        agreed = self.agree(loss, grad_norm)
        bad = self.judge(agreed)
        self.checkpointer.maybe_wait_for_staging()
        if not bad:
            self.optimizers.step()
            self.metrics_processor.accept_step()
        self.lr_schedulers.step()
        self.metrics_processor.flops += self.flops()
        self.metrics_processor.bar.update()
        last = self.step == self.total_steps
        saves = self.checkpointer.decide(
            self.step, last=last or self.stopping, is_time=agreed.is_time, accepted=not bad
        )
        if saves or self.metrics_processor.should_log(self.step):
            metrics = {} if bad else {"train/objective": agreed.loss, "train/grad_norm": agreed.grad_norm}
            metrics |= {
                "train/active_exits": len(self.weights),
                "train/lr": lr,
                "train/tokens": self.dataloader.position * self.recipe.train.seq_len,
                "train/bad_steps": self.bad_steps.total,
            }
            self.metrics_processor.report(self.step, metrics, accepted=not bad)
        if last or self.step % self.recipe.validation.every == 0:
            self.validate(self.recipe.validation.final_tokens if last else self.recipe.validation.tokens)

    def forward_backward(self, data_iterator: Any) -> torch.Tensor:
        """The gradient of a step over all its micro-batches; returns this rank's part of the loss."""
        self.micro_batch = 0
        self.metrics_processor.begin_step()
        # torchtitan counts the step it is in, from 1; t is the number of steps completed.
        self.weights = exit_weights(self.recipe.early_exit, self.step - 1, self.n_layers, self.total_steps)
        batches = [next(data_iterator) for _ in range(self.gradient_accumulation_steps)]
        # The mean over the step's tokens is the sum over ranks and micro-batches of loss sums / all valid tokens.
        valid_tokens = torch.stack([(labels != IGNORE_INDEX).sum() for _, labels in batches]).sum().to(self.device)
        if self.parallel_dims.dp_enabled:
            valid_tokens = dist_utils.dist_sum_tensor(valid_tokens, self.parallel_dims.get_mesh("batch"))
        of_last = gradient_of_last(self, batches, valid_tokens)
        loss = self.accumulate(batches, valid_tokens)
        if of_last is not None:
            *exits, _ = self.weights
            head = not self.recipe.early_exit.read_only_head
            self.metrics_processor.gradient_cosine = gradient_cosine(self.model_parts[0], of_last, exits, head=head)
        return loss

    def accumulate(
        self, batches: list[tuple[dict[str, torch.Tensor], torch.Tensor]], valid_tokens: torch.Tensor
    ) -> torch.Tensor:
        """Forward and backward of all micro-batches, each let go of in turn; returns this rank's part of the loss."""
        losses = []
        while batches:
            inputs, labels = batches.pop(0)
            on_device = {key: value.to(self.device) for key, value in inputs.items()}
            losses.append(
                self.forward_backward_step(
                    input_dict=on_device, labels=labels.to(self.device), global_valid_tokens=valid_tokens
                ).detach()
            )
        return torch.stack(losses).sum()

    def agree(self, loss: torch.Tensor, grad_norm: torch.Tensor) -> "Agreed":
        """What all ranks know of a step, the same on each, in one sum over all of them.

        The host waits for the device here, once a step: whether the update is to be taken must be known before it is.
        Under tensor parallelism several ranks have the same part of the loss, which counts once.
        """
        rank, dims = dist.get_rank(), self.parallel_dims
        counts = not dims.tp_enabled or dims.get_mesh("tp").get_local_rank() == 0
        layer, exit_loss = self.metrics_processor.exit_losses.deepest()
        numbers = [
            loss.double() if counts else 0.0,
            exit_loss.double() if counts else 0.0,
            grad_norm.double() if rank == 0 else 0.0,
            ~torch.isfinite(grad_norm),
            float(rank == 0 and self.checkpointer.is_time()),
        ]
        sums = torch.stack([torch.as_tensor(n, dtype=torch.float64, device=self.device).reshape(()) for n in numbers])
        if dims.world_size > 1:
            dist.all_reduce(sums)
        total_loss, total_exit_loss, norm, n_not_finite, is_time = sums.tolist()
        return Agreed(total_loss, layer + 1, total_exit_loss, math.nan if n_not_finite else norm, bool(is_time))

    def judge(self, agreed: "Agreed") -> bool:
        """Whether the step is bad, which is written down. Raises TrainingError when too many are."""
        why = self.bad_steps.judge(
            self.step,
            loss=agreed.loss,
            grad_norm=agreed.grad_norm,
            exit_layer=agreed.exit_layer,
            exit_loss=agreed.exit_loss,
        )
        if why is None:
            return False
        if dist.get_rank() == 0:
            n_rows = self.recipe.train.global_batch_size
            rows = self.dataloader.origins(self.dataloader.position - n_rows, n_rows)
            names = [source.name for source in self.corpus.sources]
            report = BadStep(self.step, why, agreed.loss, agreed.exit_layer, agreed.exit_loss, agreed.grad_norm, rows)
            report.append_to(Path(self.recipe.run_dir, BAD_STEPS), names)
            self.metrics_processor.write(self.step, report.metrics())
            logger.warning("%s", report.line(names, self.bad_steps.total))
        if self.bad_steps.too_many:
            options = self.recipe.bad_steps
            raise TrainingError(
                f"step {self.step}: {why}, as in {len(self.bad_steps.recent)} of the last {options.window} steps, more"
                f" than bad_steps.most={options.most}; {self.checkpointer.from_where()} with a lower optimizer.lr or a"
                f" longer warm-up, or look at the rows in {BAD_STEPS}"
            )
        return True

    def should_continue_training(self) -> bool:
        """Asked by torchtitan after each step and its checkpoint."""
        return super().should_continue_training() and not self.stopping

    def checkpoint_facts(self) -> dict[str, Any]:
        """What the manifest says of a checkpoint of this step."""
        step, loss = self.validation_loss
        return {"bad_steps": self.bad_steps.state(), VALIDATION_LOSS: loss if step == self.step else None}

    def forward_backward_step(
        self, *, input_dict: dict[str, torch.Tensor], labels: torch.Tensor, global_valid_tokens: torch.Tensor
    ) -> torch.Tensor:
        """Forward through the kept rows to the step's exits, weighted loss, backward.

        Returns the micro-batch's loss, summed over its tokens and divided by the tokens of the whole step.
        """
        if self.parallel_dims.cp_enabled:
            # This rank will have a part of each row, and must know which.
            input_dict["positions"] = torch.arange(labels.shape[1], device=self.device).expand(labels.shape)
        inputs, labels, extra = self.post_dataloading_process(input_dict, labels)
        t, weights = self.step - 1, self.weights
        layers = tuple(weights)
        kept, scales = self.dropout_plan(t, len(inputs))
        read_only = self.recipe.early_exit.read_only_head
        soft = soft_targets(self.recipe.early_exit.distillation, t, self.total_steps, labels, kept)
        with self.train_context():
            states = self.model_parts[0](
                inputs, exits=layers, kept_rows=kept, branch_scales=scales, read_only_norm=read_only, **extra
            )
            loss, parts = self.loss_fn(
                states,
                labels,
                global_valid_tokens,
                weights=tuple(weights.values()),
                soft_targets=soft,
                read_only_head=read_only,
            )
            del states
            loss.backward()
        self.metrics_processor.add(layers, parts)
        self.micro_batch += 1
        return loss

    def flops(self) -> float:
        """Of the matrix products of this step, on all ranks, in expectation over the dropped rows."""
        dropped = dropout_probabilities(self.recipe.layer_dropout, self.step - 1, self.n_layers, self.total_steps)
        options = self.recipe.train
        kept = [1.0 - p for p in dropped]
        per_token = flops_per_token(self.recipe.model, options.seq_len, kept, tuple(self.weights))
        return options.global_batch_size * options.seq_len * per_token

    def dropout_plan(self, t: int, batch_size: int) -> tuple[list[torch.Tensor | None] | None, list[float] | None]:
        """For each layer, the rows kept in this micro-batch and the scale of their branch; (None, None) if all are."""
        options = self.recipe.layer_dropout
        if options.p_max == 0.0:
            return None, None
        p = dropout_probabilities(options, t, self.n_layers, self.total_steps)
        seed = self.recipe.train.seed
        rows = [
            kept_rows(seed, t, self.micro_batch, layer, p[layer], batch_size, options.sampling)
            for layer in range(self.n_layers)
        ]
        return [r if r is None else r.to(self.device, non_blocking=True) for r in rows], [
            branch_scale(options, p_l) for p_l in p
        ]

    def validate(self, n_tokens: int | None) -> None:
        """Measure every exit on held-out text, write the metrics and the plot.

        Raises TrainingError for weights with which nothing can be measured.
        """
        if not all_finite(list(self.model_parts)):
            raise TrainingError(
                f"step {self.step}: the weights are not finite after the update; {self.checkpointer.from_where()}"
                " with a lower optimizer.lr or a longer warm-up"
            )
        options, seq_len = self.recipe.validation, self.recipe.train.seq_len
        rows = training_rows(self.corpus.validation, self.corpus, self.recipe.data, seq_len)
        mesh = self.parallel_dims.get_mesh("batch") if self.parallel_dims.dp_enabled else None
        batches = validation_batches(
            rows,
            max_rows=None if n_tokens is None else -(-n_tokens // seq_len),
            batch_size=self.config.training.local_batch_size,
            fill_id=self.corpus.tokenizer.eos_id,
            rank=mesh.get_local_rank() if mesh else 0,
            world_size=mesh.size() if mesh else 1,
            apart=keeps_apart(self.corpus, self.recipe.data),
        )
        layers = options.layers(self.n_layers)
        model = self.model_parts[0]
        model.eval()
        sums = exit_sums(
            model,
            model.lm_head,
            batches,
            layers,
            self.token_bytes,
            self.recipe.train.loss_chunk_tokens,
            self.part_of_rows(),
        )
        model.train()
        sharing = self.parallel_dims.get_mesh("loss").get_group() if self.parallel_dims.dp_cp_enabled else None
        metrics = exit_metrics(sums, layers, self.recipe.model, sharing)
        if not all(map(math.isfinite, metrics.values())):
            raise TrainingError(
                f"step {self.step}: the validation loss is not finite; {self.checkpointer.from_where()} with a lower"
                " optimizer.lr or a longer warm-up"
            )
        self.validation_loss = (self.step, metrics[f"val/loss/{exit_name(self.n_layers)}"])
        self.metrics_processor.write(self.step, metrics | schedule_metrics(self.recipe, self.step))
        logger.info(validation_line(metrics))
        if dist.get_rank() == 0:
            self.plot()
        self.metrics_processor.reset_clock()

    def plot(self) -> None:
        """Draw perplexity by exit, and show it. A disk that is full does not stop the run. For rank 0 alone."""
        path = Path(self.recipe.run_dir, "perplexity_by_exit.png")
        rows, picture = [], None
        try:
            rows = read_metrics(Path(self.recipe.run_dir, METRICS))
            plot_perplexity_by_exit(rows, path)
            picture = path
        except (OSError, LookupError) as error:
            why = reason(error) if isinstance(error, OSError) else f"{METRICS} has no validation yet"
            logger.warning("%s: cannot be written (%s); training goes on", path, why)
        self.metrics_processor.show(rows, picture)

    def part_of_rows(self) -> slice | None:
        """The tokens of each row that this rank has under context parallelism; None without it."""
        dims = self.parallel_dims
        if not dims.cp_enabled:
            return None
        n, rank = self.recipe.train.seq_len // dims.cp, dims.get_mesh("cp").get_local_rank()
        return slice(rank * n, (rank + 1) * n)


def initialise_optimizer_state(optimizers: Any) -> None:
    """Give every parameter its (zero) optimizer state before the first step.

    AdamW creates it with the first gradient, and a block that layer dropout has always skipped has had none: a
    checkpoint without its state could not be loaded. The initialising step, of zero gradients and zero learning rate,
    leaves a count of 1 behind, which would spoil Adam's bias correction.
    """
    for optimizer in optimizers:
        init_optim_state(optimizer)
        for state in optimizer.state.values():
            state["step"].zero_()
