"""From logits to tokens: greedy or sampled, and which drafted tokens the full model accepts.

p is the full model's distribution after penalty, temperature, top-k, top-p and min-p, q the draft's after the same.
What a penalty depends on, the tokens before, grows with the drafts of a round: behind the same drafts p and q are made
with the same set of tokens. A drafted token x is accepted with probability min(1, p(x)/q(x)); the first rejected one is
replaced by a draw from max(p - q, 0), normalised; if all are accepted, one more is drawn from p. What comes out is
distributed as if every token had been drawn from p (Leviathan et al. 2023, theorem 1). Greedy decoding is its limit:
accept the agreeing prefix, then take the argmax.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from eval.engine.sampling_options import SamplingOptions
from models.kernels import draws
from models.kernels.few_tokens import GREEDY, Choice


def penalised(logits: torch.Tensor, seen: torch.Tensor, penalty: float) -> torch.Tensor:
    """Logits [..., V] with those of seen tokens lowered: divided by the penalty, or multiplied if negative.

    In at least fp32; `seen` [..., V] bool. This is the repetition penalty of CTRL (Keskar et al. 2019), as transformers
    has it.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


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
    if options.min_p > 0.0:
        p = p.masked_fill(p < options.min_p * p.amax(-1, keepdim=True), 0.0)
        p = p / p.sum(-1, keepdim=True)
    return p


def draw(weights: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """An index [1] with probability weights / their sum; weights [V], not negative, of a positive sum.

    The place of one uniform number in the cumulative sum. torch.multinomial draws a number for each of the V instead,
    which takes a CPU ten to twenty times as long.
    """
    upto = weights.cumsum(-1, dtype=torch.float64)
    number = draws.uniforms(1, generator) * upto[-1:]
    return torch.searchsorted(upto, number, right=True).clamp_max(len(weights) - 1)


def best(logits: torch.Tensor, *, keepdim: bool = False) -> torch.Tensor:
    """The most likely token; [..., V] -> [...] or [..., 1]. On a CPU max takes a third of the time of argmax."""
    return logits.max(-1, keepdim=keepdim).indices


class Sampler:
    """Draws and accepts the tokens of one text on the model's device, without waiting for it."""

    def __init__(self, options: SamplingOptions, device: torch.device) -> None:
        self.options, self.device = options, device
        self.greedy = options.temperature == 0.0
        self.plain = options.plain
        """Whether the next token is the one with the largest logit, whatever has been seen."""
        self.whole = options.whole
        """Whether it depends on the logits and the draw alone."""
        self.generator = torch.Generator(device).manual_seed(options.seed)
        self.seen: torch.Tensor | None = None
        """[V] bool: the tokens of prompt and text; None without a penalty."""
        self.seen_by_draft: torch.Tensor | None = None
        """The same with the drafts of this round."""

    def begin(self, prompt: Sequence[int], vocab_size: int) -> None:
        """A text that begins with this prompt."""
        if self.options.repetition_penalty != 1.0:
            self.seen = torch.zeros(vocab_size, dtype=torch.bool, device=self.device)
            self.seen[torch.tensor(prompt, device=self.device)] = True
            self.seen_by_draft = self.seen.clone()

    def pick(self, logits: torch.Tensor) -> torch.Tensor:
        """The text's next token [1] from logits [V]."""
        token, _ = self._choose(logits, self.seen)
        self._remember(token)
        return token

    def draft(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """A drafted token [1] from logits [V], and the distribution [V] it was drawn from (None when greedy)."""
        token, q = self._choose(logits, self.seen_by_draft)
        if self.seen_by_draft is not None:
            self.seen_by_draft[token] = True
        return token, q

    def choice(self, n: int) -> Choice:
        """How n tokens in succession are to be chosen, where `whole`."""
        return GREEDY if self.greedy else Choice(self.options.temperature, draws.uniforms(n, self.generator))

    def _choose(self, logits: torch.Tensor, seen: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        if seen is not None:
            logits = penalised(logits, seen, self.options.repetition_penalty)
        if self.greedy:
            return best(logits, keepdim=True), None
        if self.whole and draws.draws_from(logits):
            return draws.draw(logits, self.options.temperature, self.generator)
        p = probabilities(logits, self.options)
        return draw(p, self.generator), p

    def _remember(self, tokens: torch.Tensor) -> None:
        """These tokens stand in the text; the drafts that do not are forgotten."""
        if self.seen is not None:
            self.seen[tokens] = True
            self.seen_by_draft = self.seen.clone()

    def _penalised_rows(self, logits: torch.Tensor, drafted: torch.Tensor) -> torch.Tensor:
        """Logits [d+1, V] of the full model, each with what had been seen when its token was drafted."""
        if self.seen is None:
            return logits
        marks = F.one_hot(drafted, logits.shape[-1]).cumsum(0) > 0
        seen = torch.cat([self.seen[None], self.seen | marks])
        return penalised(logits, seen, self.options.repetition_penalty)

    def accept(
        self, drafted: torch.Tensor, draft_probabilities: torch.Tensor | None, logits: torch.Tensor
    ) -> tuple[list[int], list[int], torch.Tensor]:
        """Which drafted tokens are accepted, and the token that the full model adds. Waits for the device once.

        Args:
            drafted: [d] tokens.
            draft_probabilities: [d, V], q of each, a single 1 for a draft that was not drawn; None when greedy.
            logits: [d+1, V] of the full model, before each drafted token and after the last.

        Returns:
            (the ids of the round, all but the last of which were drafted; the drafted ids that are not accepted; the
            last id of the round as a tensor [1]).
        """
        d, logits = len(drafted), self._penalised_rows(logits, drafted)
        if self.greedy:
            choice = best(logits)
            ids = torch.cat([drafted, choice]).tolist()
            n = next((i for i in range(d) if ids[i] != ids[d + i]), d)
            self._remember(torch.cat([drafted[:n], choice[n : n + 1]]))
            return [*ids[:n], ids[d + n]], ids[n:d], choice[n : n + 1]
        assert draft_probabilities is not None
        length, last = self._reject(drafted, draft_probabilities, logits)
        *ids, next_id, n = torch.cat([drafted, last, length.view(1)]).tolist()
        self._remember(torch.cat([drafted[:n], last]))
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

    def _reject(
        self, drafted: torch.Tensor, q: torch.Tensor, logits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rejection sampling: how many of [d] tokens drawn from q [d, V] stand for draws from p [d+1, V], and the next.

        Returns (a scalar in 0..d, a token [1]).
        """
        if self.whole and draws.draws_from(logits):
            return draws.accept(drafted, q, logits, self.options.temperature, self.generator)
        p = probabilities(logits, self.options)
        q, at = q.to(p.dtype), drafted.unsqueeze(-1)
        u = torch.rand(len(drafted), dtype=p.dtype, device=p.device, generator=self.generator)
        accepted = u * q.gather(-1, at).squeeze(-1) < p[:-1].gather(-1, at).squeeze(-1)
        n = accepted.cumprod(0).sum()
        # After the last drafted token nothing was drafted: q = 0 and the residual is p itself.
        q = torch.cat([q, torch.zeros_like(q[:1])])
        p_n, q_n = p.index_select(0, n.view(1))[0], q.index_select(0, n.view(1))[0]
        residual = (p_n - q_n).clamp_min(0.0)
        # Where p equals q a rejection can only be a rounding error, and the residual is nothing.
        residual = torch.where(residual.sum() > 0, residual, p_n)
        return n, draw(residual, self.generator)
