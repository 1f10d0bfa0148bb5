"""The loss of one chunk of one exit's logits: from the labels, or from the labels and what the last layer predicts."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from models.exits import chunk_bounds, last_exit_first, local
from train.recipe.distillation import DistillationConfig, strength_at
from train.recipe.soft_targets import Teacher, soft_loss, teacher_of, vocabulary_part


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


class LabelLoss:
    """Cross entropy of every exit."""

    order = staticmethod(chunk_bounds)

    def __init__(
        self,
        fn: Callable[..., torch.Tensor],
        labels: torch.Tensor,
        at: torch.Tensor,
        n_exits: int,
        scale: torch.Tensor | float,
    ) -> None:
        """Begin a micro-batch.

        Args:
            fn: of logits [1, n, V] and labels [1, n], the sum over the n tokens.
            labels: [B, T].
            at: [N] the tokens that go through the head, as indices of the B*T; they are counted from 0 from here on.
            n_exits: X.
            scale: what sums over tokens are multiplied with.
        """
        self.fn, self.labels, self.scale = fn, labels.reshape(-1)[at], scale
        self.exit_losses = torch.zeros(n_exits, device=labels.device)

    def of_chunk(self, logits: torch.Tensor, x: int, start: int, end: int) -> torch.Tensor:
        """The scaled loss of exit x, whose logits [1, n, V] are of the tokens start..end; it is counted as well."""
        loss = self.fn(logits, self.labels[None, start:end]) * self.scale
        self.exit_losses[x] += loss.detach()
        return loss

    def parts(self) -> dict[str, torch.Tensor]:
        """What was counted of each exit: [X] cross entropies."""
        return {"exit_losses": self.exit_losses}


class TaughtLoss:
    """Cross entropy of the last exit, which teaches the others: chunks must come in the order of `order`."""

    order = staticmethod(last_exit_first)

    def __init__(
        self,
        targets: SoftTargets,
        labels: torch.Tensor,
        at: torch.Tensor,
        n_exits: int,
        scale: torch.Tensor | float,
        *,
        compiled: bool,
    ) -> None:
        """Begin a micro-batch; the arguments are those of `LabelLoss`, and the step's `targets`."""
        self.compiled = compiled
        self.temperature, self.last, self.scale = targets.temperature, n_exits - 1, scale
        self.labels, self.teacher = labels.reshape(-1)[at], None
        shares = torch.full(labels.shape, targets.kl_share, device=labels.device)
        if targets.teaching_rows is not None:
            shares *= targets.teaching_rows[:, None]
        self.kl_shares = shares.view(-1, 1)[at]
        self.exit_losses, self.divergences = torch.zeros(2, n_exits, device=labels.device)

    teacher: Teacher | None

    def of_chunk(self, logits: torch.Tensor, x: int, start: int, end: int) -> torch.Tensor:
        """As `LabelLoss.of_chunk`."""
        part, here = vocabulary_part(logits), slice(start, end)
        if x == self.last:
            self.teacher = None  # that of the tokens before, whose memory is free for the next
        found = soft_loss(
            local(logits).squeeze(0),
            self.labels[here],
            self.teacher,
            self.kl_shares[here],
            self.temperature,
            part,
            compiled=self.compiled,
        )
        if x == self.last:
            self.teacher = teacher_of(found.log_probabilities, self.temperature, part, compiled=self.compiled)
        self.exit_losses[x] += found.nats * self.scale
        self.divergences[x] += found.divergence * self.scale
        return found.objective * self.scale

    def parts(self) -> dict[str, torch.Tensor]:
        """What was counted of each exit: [X] cross entropies, and divergences from the last."""
        return {"exit_losses": self.exit_losses, "divergences": self.divergences}
