"""What a LayerSkip step does differently from torchtitan's Trainer; nothing else."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torchtitan.components.optimizer.utils import init_optim_state
from torchtitan.trainer import Trainer

from data.batches.loader import validation_batches
from data.corpus import Corpus
from data.training import rows_of
from models.layer_dropout import kept_rows
from train.cluster.agreement import any_rank, cpu_group
from train.cluster.preemption import Preemption
from train.config import PretrainConfig
from train.errors import TrainingError
from train.monitoring.metrics import DIVERGED, LayerSkipMetrics
from train.monitoring.plots import plot_perplexity_by_exit
from train.monitoring.report import validation_line
from train.monitoring.sinks import open_sinks
from train.recipe.dropout_schedule import branch_scale, dropout_probability
from train.recipe.exit_weights import exit_weights
from train.run_dir import last_checkpoint, read_metrics
from train.validate import exit_metrics, exit_sums

logger = logging.getLogger(__name__)


class LayerSkipTrainer(Trainer):
    """torchtitan's Trainer with layer dropout, the early-exit loss and validation at every exit."""

    metrics_processor: LayerSkipMetrics

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
        self.cpu_group = cpu_group(self.recipe.cluster.timeout_seconds)
        self.stopping = False
        initialise_optimizer_state(self.optimizers)
        self.token_bytes = torch.tensor(self.corpus.tokenizer.token_bytes(), device=self.device)
        first_step = last_checkpoint(self.recipe.run_dir)
        self.metrics_processor.attach(
            open_sinks(self.recipe) if dist.get_rank() == 0 else [], first_step, self.total_steps
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
        """One optimizer step, and validation where it is due: before the checkpoint, which then implies it was done."""
        self.micro_batch = 0
        self.stopping = any_rank(self.preemption.signal is not None, self.cpu_group)
        self.metrics_processor.stopping = self.checkpointer.stopping = self.stopping
        if self.stopping:
            logger.info("%s: step %d is the last of this process", self.preemption, self.step)
        self.metrics_processor.exit_losses.begin_step()
        try:
            super().train_step(data_iterator)
        except RuntimeError as error:
            if "Loss is not finite" not in str(error):
                raise
            raise TrainingError(f"step {self.step}: the loss is not finite; {DIVERGED}") from error
        self.metrics_processor.bar.update()
        last = self.step == self.total_steps
        if last or self.step % self.recipe.validation.every == 0:
            self.validate(self.recipe.validation.final_tokens if last else self.recipe.validation.tokens)

    def should_continue_training(self) -> bool:
        """Asked by torchtitan after each step and its checkpoint."""
        return super().should_continue_training() and not self.stopping

    def state_dict(self) -> dict[str, Any]:
        """The step, and the tokens that all ranks have seen: their number may be another when the run goes on."""
        dims = self.parallel_dims
        ranks = dims.world_size // dims.non_data_parallel_size * dims.cp
        return {"step": self.step, "ntokens_seen": self.metrics_processor.tokens_before + self.ntokens_seen * ranks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from there; torchtitan's `ntokens_seen` is what this rank has seen since."""
        self.step, self.ntokens_seen = state_dict["step"], 0
        self.metrics_processor.tokens_before = state_dict["ntokens_seen"]

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
        # torchtitan counts the step it is in, from 1; t is the number of steps completed.
        t = self.step - 1
        weights = exit_weights(self.recipe.early_exit, t, self.n_layers, self.total_steps)
        layers = tuple(weights)
        kept, scales = self.dropout_plan(t, len(inputs))
        with self.train_context():
            states = self.model_parts[0](inputs, exits=layers, kept_rows=kept, branch_scales=scales, **extra)
            loss, parts = self.loss_fn(states, labels, global_valid_tokens, weights=tuple(weights.values()))
            del states
            loss.backward()
        self.metrics_processor.exit_losses.add(layers, parts["exit_losses"])
        self.micro_batch += 1
        return loss

    def dropout_plan(self, t: int, batch_size: int) -> tuple[list[torch.Tensor | None] | None, list[float] | None]:
        """For each layer, the rows kept in this micro-batch and the scale of their branch; (None, None) if all are."""
        options = self.recipe.layer_dropout
        if options.p_max == 0.0:
            return None, None
        p = [dropout_probability(options, i, t, self.n_layers, self.total_steps) for i in range(self.n_layers)]
        seed = self.recipe.train.seed
        rows = [
            kept_rows(seed, t, self.micro_batch, layer, p[layer], batch_size, options.sampling)
            for layer in range(self.n_layers)
        ]
        return [r if r is None else r.to(self.device, non_blocking=True) for r in rows], [
            branch_scale(options, p_l) for p_l in p
        ]

    def validate(self, n_tokens: int | None) -> None:
        """Measure every exit on held-out text, write the metrics and the plot."""
        options, seq_len = self.recipe.validation, self.recipe.train.seq_len
        rows = rows_of(self.corpus.validation, self.corpus, self.recipe.data, seq_len)
        mesh = self.parallel_dims.get_mesh("batch") if self.parallel_dims.dp_enabled else None
        batches = validation_batches(
            rows,
            max_rows=None if n_tokens is None else -(-n_tokens // seq_len),
            batch_size=self.config.training.local_batch_size,
            fill_id=self.corpus.tokenizer.eos_id,
            rank=mesh.get_local_rank() if mesh else 0,
            world_size=mesh.size() if mesh else 1,
        )
        layers = sorted({e - 1 for e in options.exit_layers or range(1, self.n_layers + 1)} | {self.n_layers - 1})
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
        metrics = exit_metrics(sums, layers, sharing)
        self.metrics_processor.write(self.step, metrics)
        logger.info(validation_line(metrics))
        if dist.get_rank() == 0:
            folder = Path(self.recipe.run_dir)
            plot_perplexity_by_exit(read_metrics(folder / "metrics.jsonl"), folder / "perplexity_by_exit.png")
        self.metrics_processor.reset_clock()

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
