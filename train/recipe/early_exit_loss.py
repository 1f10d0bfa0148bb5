"""The training loss: cross entropy at every active exit through the shared head, chunk by chunk, weighted and summed.

Paper, equation 5: J(t) = sum_l e~(t, l) CE(g(x_{l+1}), Y). With S_x the sum of the cross entropies of exit x over this
micro-batch's valid labels and N the number of valid labels of the whole step (all ranks, all micro-batches), what is
returned is sum_x e~_x S_x / N. FSDP sums gradients over ranks and accumulation sums them over micro-batches, so the
gradient is that of the mean over all tokens of the step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torchtitan.components.loss import ChunkedLossWrapper, cross_entropy_loss
from torchtitan.config import CompileConfig

from models.exits import chunk_bounds, gathered_head, local, spread, sync_last_chunk


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
        self._maybe_compile(compile_config)

    def __call__(
        self,
        pred: torch.Tensor,
        labels: torch.Tensor,
        global_valid_tokens: torch.Tensor | None = None,
        *,
        weights: Sequence[float] = (1.0,),
        **_: Any,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Weighted loss of X exits.

        Each chunk's backward is taken at once, so only one chunk's logits exist at a time; the gradient with respect to
        the exit states is gathered in one buffer, with which the returned loss's backward goes on through the decoder.

        Args:
            pred: [X*B, T, D] exit states after the final norm, exit by exit.
            labels: [B, T] int64, IGNORE_INDEX where there is no loss.
            global_valid_tokens: N, of the whole step; None counts as 1.
            weights: e~ of the X exits.

        Returns:
            The loss, a scalar in fp32, and {"exit_losses": [X] fp32, S_x / N of this micro-batch}.
        """
        assert self.lm_head is not None, "the trainer sets the LM head"
        n_exits = len(weights)
        states = local(pred.detach()).view(n_exits, labels.numel(), pred.shape[-1])
        targets = labels.reshape(-1)
        scale = 1.0 if global_valid_tokens is None else 1.0 / global_valid_tokens
        train = torch.is_grad_enabled() and pred.requires_grad
        grad = torch.empty_like(states) if train else None
        placements = None
        exit_losses = torch.zeros(n_exits, device=pred.device)
        chunks = list(chunk_bounds(n_exits, labels.numel(), self.chunk_tokens))
        with gathered_head(self.lm_head, then_backward=train):
            for i, (x, start, end) in enumerate(chunks):
                if i == len(chunks) - 1:
                    sync_last_chunk(self.lm_head)
                chunk = spread(states[x, start:end].unsqueeze(0), pred).requires_grad_(train)
                loss = self.fn(self.lm_head(chunk), targets[None, start:end]) * scale
                exit_losses[x] += loss.detach()
                if grad is not None:
                    (loss * weights[x]).backward()
                    assert chunk.grad is not None
                    # Under tensor parallelism a sum still to be taken over ranks: once, over all chunks.
                    placements = getattr(chunk.grad, "placements", None)
                    grad[x, start:end] = local(chunk.grad)[0]
        total = (exit_losses * torch.tensor(weights, device=pred.device)).sum()
        if grad is not None:
            whole_grad = spread(grad.view(pred.shape), pred, placements)
            total = self._gradient_backprop(pred, whole_grad, total, self.lm_head, False)
        return total, {"exit_losses": exit_losses}
