"""From logits to tokens: greedy or sampled, and which drafted tokens the full model accepts.

p is the full model's distribution after temperature, top-k and top-p, q the draft's after the same. A drafted token x
is accepted with probability min(1, p(x)/q(x)); the first rejected one is replaced by a draw from max(p - q, 0),
normalised; if all are accepted, one more is drawn from p. What comes out is distributed as if every token had been
drawn from p (Leviathan et al. 2023, theorem 1). Greedy decoding is its limit: accept the agreeing prefix, then take the
argmax.
"""

import torch

from eval.engine.sampling_options import SamplingOptions


def probabilities(logits: torch.Tensor, options: SamplingOptions) -> torch.Tensor:
    """The distribution that is drawn from, in at least fp32; [..., V] -> [..., V]."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / options.temperature
    if 0 < options.top_k < logits.shape[-1]:
        smallest = logits.topk(options.top_k).values[..., -1:]
        logits = logits.masked_fill(logits < smallest, float("-inf"))
    p = logits.softmax(-1)
    if options.top_p < 1.0:
        ordered, ids = p.sort(dim=-1, descending=True)
        # A token is left out when those before it reach top_p already.
        ordered = ordered.masked_fill(ordered.cumsum(-1) - ordered >= options.top_p, 0.0)
        p = torch.zeros_like(p).scatter(-1, ids, ordered)
        p = p / p.sum(-1, keepdim=True)
    return p


def best(logits: torch.Tensor, *, keepdim: bool = False) -> torch.Tensor:
    """The most likely token; [..., V] -> [...] or [..., 1]. On a CPU max takes a third of the time of argmax."""
    return logits.max(-1, keepdim=keepdim).indices


class Sampler:
    """Draws and accepts tokens on the model's device, without waiting for it."""

    def __init__(self, options: SamplingOptions, device: torch.device) -> None:
        self.options = options
        self.greedy = options.temperature == 0.0
        self.generator = torch.Generator(device).manual_seed(options.seed)

    def pick(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """A token [1] from logits [V], and the distribution [V] it was drawn from (None when greedy)."""
        if self.greedy:
            return best(logits, keepdim=True), None
        p = probabilities(logits, self.options)
        return p.multinomial(1, generator=self.generator), p

    def accept(
        self, drafted: torch.Tensor, draft_probabilities: torch.Tensor | None, logits: torch.Tensor
    ) -> tuple[list[int], list[int], torch.Tensor]:
        """Which drafted tokens are accepted, and the token that the full model adds. Waits for the device once.

        Args:
            drafted: [d] tokens.
            draft_probabilities: [d, V], q of each; None when greedy.
            logits: [d+1, V] of the full model, before each drafted token and after the last.

        Returns:
            (the ids of the round, all but the last of which were drafted; the drafted ids that are not accepted; the
            last id of the round as a tensor [1]).
        """
        d = len(drafted)
        if self.greedy:
            choice = best(logits)
            ids = torch.cat([drafted, choice]).tolist()
            n = next((i for i in range(d) if ids[i] != ids[d + i]), d)
            return [*ids[:n], ids[d + n]], ids[n:d], choice[n : n + 1]
        assert draft_probabilities is not None
        length, last = self._reject(drafted, draft_probabilities, probabilities(logits, self.options))
        *ids, next_id, n = torch.cat([drafted, last, length.view(1)]).tolist()
        return [*ids[:n], next_id], ids[n:], last

    def agreement(self, draft_logits: torch.Tensor, logits: torch.Tensor) -> tuple[float, ...]:
        """The chance that a draft from `draft_logits` [T, V] is accepted by a model of `logits` [T or more, V].

        It is sum_v min(p(v), q(v)); greedy: whether both choose the same token. Waits for the device.
        """
        logits = logits[: len(draft_logits)]
        if self.greedy:
            return tuple((best(draft_logits) == best(logits)).float().tolist())
        p, q = probabilities(logits, self.options), probabilities(draft_logits, self.options)
        return tuple(torch.minimum(p, q).sum(-1).tolist())

    def _reject(self, drafted: torch.Tensor, q: torch.Tensor, p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rejection sampling: how many of [d] tokens drawn from q [d, V] stand for draws from p [d+1, V], and the next.

        Returns (a scalar in 0..d, a token [1]).
        """
        at = drafted.unsqueeze(-1)
        u = torch.rand(len(drafted), dtype=p.dtype, device=p.device, generator=self.generator)
        accepted = u * q.gather(-1, at).squeeze(-1) < p[:-1].gather(-1, at).squeeze(-1)
        n = accepted.cumprod(0).sum()
        # After the last drafted token nothing was drafted: q = 0 and the residual is p itself.
        q = torch.cat([q, torch.zeros_like(q[:1])])
        p_n, q_n = p.index_select(0, n.view(1))[0], q.index_select(0, n.view(1))[0]
        residual = (p_n - q_n).clamp_min(0.0)
        # Where p equals q a rejection can only be a rounding error, and the residual is nothing.
        residual = torch.where(residual.sum() > 0, residual, p_n)
        return n, residual.multinomial(1, generator=self.generator)
