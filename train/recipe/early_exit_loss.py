"""The training loss: cross entropy at every active exit through the shared head, chunk by chunk, weighted and summed.

Paper, equation 5: J(t) = sum_l e~(t, l) CE(g(x_{l+1}), Y). With S_x the sum of the cross entropies of exit x over this
micro-batch's valid labels and N the number of valid labels of the whole step (all ranks, all micro-batches), what is
returned is sum_x e~_x S_x / N. FSDP sums gradients over ranks and accumulation sums them over micro-batches, so the
gradient is that of the mean over all tokens of the step.

Tokens without a label, such as those of a prompt, do not go through the head, but for the few that fill it up.

Under distillation (train/recipe/distillation.py) the last layer's chunk comes first, and those of the other exits on
the same tokens after it, beside what it predicts: one tensor of [chunk, vocabulary] more, and no matrix product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch._guards import detect_fake_mode
from torchtitan.components.loss import ChunkedLossWrapper, cross_entropy_loss
from torchtitan.config import CompileConfig

from data.batches.packing import IGNORE_INDEX
from models.exits import gathered_head, local, spread, sync_last_chunk
from train.recipe.chunk_losses import LabelLoss, SoftTargets, TaughtLoss

FULL_HEAD = 64
"""Tokens go through the head in multiples of this many: oneDNN keeps what it has made for every number it has seen, and
would fill the memory of a long run with 0.1 GB a step (a vocabulary of 49,152, four exits)."""


class EarlyExitLoss(ChunkedLossWrapper):
    """Loss over several exits. torchtitan's Trainer hands the LM head over to instances of its base class."""

    @dataclass(kw_only=True, slots=True)
    class Config(ChunkedLossWrapper.Config):
        """`chunk_tokens` bounds the logits that exist at a time; `num_chunks` of the base class is not used."""

        chunk_tokens: int = 2048

    def __init__(self, config: Config, *, compile_config: CompileConfig | None = None) -> None:
        super().__init__(config, compile_config=compile_config)
        self.chunk_tokens = config.chunk_tokens
        self.fn = cross_entropy_loss
        self.compiled = compile_config is not None and compile_config.enable
        self._maybe_compile(compile_config)

    def __call__(
        self,
        pred: torch.Tensor,
        labels: torch.Tensor,
        global_valid_tokens: torch.Tensor | None = None,
        *,
        weights: Sequence[float] = (1.0,),
        soft_targets: SoftTargets | None = None,
        read_only_head: bool = False,
        **_: Any,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Weighted loss of X exits.

        Each chunk's backward is taken at once, so only one chunk's logits exist at a time; the gradient with respect to
        the exit states is gathered in one buffer, with which the returned loss's backward goes on through the decoder.

        Args:
            pred: [X*B, T, D] exit states after the final norm, exit by exit.
            labels: [B, T] int64, IGNORE_INDEX where there is no loss.
            global_valid_tokens: N, of the whole step; None counts as 1.
            weights: of the X exits.
            soft_targets: lets the last of them teach the others; None: all learn from the labels.
            read_only_head: gives the head the gradient of the last exit alone.

        Returns:
            The loss, a scalar in fp32, and of this micro-batch, [X] fp32 each: "exit_losses", S_x / N; with soft
            targets "divergences", the sum of KL(p_L^tau || q_x^tau) / N, 0 for the last.
        """
        assert self.lm_head is not None, "the trainer sets the LM head"
        n_exits, n_tokens, at = len(weights), labels.numel(), self._through_head(labels)
        states, all_pass = local(pred.detach()).view(n_exits, n_tokens, pred.shape[-1]), len(at) == n_tokens
        train = torch.is_grad_enabled() and pred.requires_grad
        grad, placements = (torch.empty_like if all_pass else torch.zeros_like)(states) if train else None, None
        losses = self._losses(labels, at, n_exits, global_valid_tokens, soft_targets)
        chunks = list(losses.order(n_exits, len(at), self.chunk_tokens))
        last_of_head = max(i for i, (x, _, _) in enumerate(chunks) if x == n_exits - 1 or not read_only_head)
        objectives = torch.zeros(n_exits, device=pred.device)
        with gathered_head(self.lm_head, then_backward=train):
            for i, (x, start, end) in enumerate(chunks):
                if i == last_of_head:
                    sync_last_chunk(self.lm_head)
                tokens = slice(start, end) if all_pass else at[start:end]
                chunk = spread(states[x, tokens].unsqueeze(0), pred).requires_grad_(train)
                reads = read_only_head and x < n_exits - 1
                logits = F.linear(chunk, self.lm_head.weight.detach()) if reads else self.lm_head(chunk)
                loss = losses.of_chunk(logits, x, start, end)
                del logits
                objectives[x] += loss.detach()
                if grad is not None:
                    torch.autograd.backward(loss * weights[x])
                    assert chunk.grad is not None
                    # Under tensor parallelism a sum still to be taken over ranks: once, over all chunks.
                    placements = getattr(chunk.grad, "placements", None)
                    grad[x, tokens] = local(chunk.grad)[0]
        # The weights stay numbers of the host: nothing is copied to the device.
        total = torch.stack([one * weight for one, weight in zip(objectives, weights, strict=True)]).sum()
        if grad is not None:
            whole_grad = spread(grad.view(pred.shape), pred, placements)
            total = self._gradient_backprop(pred, whole_grad, total, self.lm_head, False)
        return total, losses.parts()

    def _through_head(self, labels: torch.Tensor) -> torch.Tensor:
        """[N] indices of the tokens with a label, ascending, filled up by others to a multiple of `FULL_HEAD`.

        Of all where there are no labels, so that no rank has nothing to do; of all as well where a GPU compiles the
        loss: the host would wait for the labels, and kernels would be compiled again for lengths that change. A
        simulated step has no labels to look at.
        """
        at = torch.arange(labels.numel(), device=labels.device)
        if (self.compiled and labels.device.type != "cpu") or detect_fake_mode(labels):
            return at
        has_label = labels.reshape(-1) != IGNORE_INDEX
        missing = -has_label.sum() % FULL_HEAD
        passing = at[has_label | ((~has_label).cumsum(0) <= missing)]
        return passing if len(passing) else at

    def _losses(
        self,
        labels: torch.Tensor,
        at: torch.Tensor,
        n_exits: int,
        global_valid_tokens: torch.Tensor | None,
        soft_targets: SoftTargets | None,
    ) -> LabelLoss | TaughtLoss:
        scale = 1.0 if global_valid_tokens is None else 1.0 / global_valid_tokens
        if soft_targets is None or n_exits == 1:
            return LabelLoss(self.fn, labels, at, n_exits, scale)
        return TaughtLoss(soft_targets, labels, at, n_exits, scale, compiled=self.compiled)
