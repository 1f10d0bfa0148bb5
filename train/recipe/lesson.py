"""What a step of distillation needs beside the logits: who learns how much, and what the last layer just predicted."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from models.exits import local
from train.recipe.distillation import DistillationConfig, strength_at
from train.recipe.soft_targets import SoftLoss, Teacher, teacher_of, vocabulary_part


class SoftTargets(NamedTuple):
    """How the exits below the last one learn from it in a step."""

    kl_share: float
    """b."""
    temperature: float
    """tau."""
    teaching_rows: torch.Tensor | None = None
    """[B] bool: the rows whose last layer teaches; for the others b = 0. None: all teach."""


def soft_targets(
    config: DistillationConfig,
    step: int,
    total_steps: int,
    labels: torch.Tensor,
    kept_rows: Sequence[torch.Tensor | None] | None,
) -> SoftTargets | None:
    """Those of step t, for a micro-batch with labels [B, T] of which each layer has kept some rows; None for labels.

    A row that has skipped the last layer predicts with the state of a layer below it.
    """
    if config.kl_share == 0.0 or strength_at(config, step, total_steps) == 0.0:
        return None
    rows = None
    if not config.teach_dropped_rows and kept_rows is not None and (kept := kept_rows[-1]) is not None:
        rows = torch.zeros(len(labels), dtype=torch.bool, device=labels.device).index_fill(0, kept, True)
    return SoftTargets(config.kl_share, config.temperature, rows)


def last_exit_first(n_exits: int, n_tokens: int, chunk_tokens: int) -> Iterator[tuple[int, int, int]]:
    """(exit index, first token, one past the last token) of every chunk; of the same tokens the last first."""
    for start in range(0, n_tokens, chunk_tokens):
        for x in (n_exits - 1, *range(n_exits - 1)):
            yield x, start, min(start + chunk_tokens, n_tokens)


class Lesson:
    """The losses of a micro-batch's chunks, taken in the order of `last_exit_first`."""

    def __init__(self, targets: SoftTargets, labels: torch.Tensor, last: int, loss: Callable[..., SoftLoss]) -> None:
        """Begin.

        Args:
            targets: of the step.
            labels: [B, T].
            last: index of the exit that teaches.
            loss: train.recipe.soft_targets.soft_loss, maybe compiled.
        """
        self.temperature, self.last, self.loss = targets.temperature, last, loss
        self.labels = labels.reshape(-1)
        self.teacher: Teacher | None = None
        b = torch.full(labels.shape, targets.kl_share, device=labels.device)
        if targets.teaching_rows is not None:
            b *= targets.teaching_rows[:, None]
        self.kl_shares = b.view(-1, 1)

    def of_chunk(
        self, logits: torch.Tensor, x: int, start: int, end: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Objective, nats and divergence of exit x; its logits [1, n, V] are of the micro-batch's tokens start..end."""
        part = vocabulary_part(logits)
        if x == self.last:
            self.teacher = None  # of the tokens before: its memory is free for the new one
        found = self.loss(
            local(logits)[0], self.labels[start:end], self.teacher, self.kl_shares[start:end], self.temperature, part
        )
        if x == self.last:
            self.teacher = teacher_of(found.log_probabilities, self.temperature, part)
        return found.objective, found.nats, found.divergence
