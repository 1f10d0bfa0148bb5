"""The ways to decode, as rounds over one model and one cache, whose rows are texts of their own.

autoregressive   every token by all L layers
early exit       every token by the first E layers and the head
self-speculative the first E layers draft d tokens; the layers above verify all of them in one pass over the exit states
                 of the drafts; the agreeing prefix and one token of the full model are emitted. No block is computed
                 twice for a token, and the host waits once per round.

A round is the same passes for all rows, each at its own position. A text that ends makes place for the next prompt.
Invariant between rounds: the cache holds positions 0 .. length-1 of a row, and its last token is not yet among them.
"""

from collections.abc import Iterable, Iterator, Sequence
from time import perf_counter
from typing import NamedTuple

import torch

from eval.engine.choices import Drafts, pick
from eval.engine.policy import Outcome, Plan, Policy, Session, check_fits, deciding_layers, session
from eval.engine.rows import Request, Round, Row
from eval.engine.sampling import Sampler
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import StopRule
from models.inference import InferenceLlama
from models.kv_cache import KVCache


def check_decodable_by(model: InferenceLlama, policy: Policy, prompt: Sequence[int], max_len: int) -> None:
    """Raise ValueError, in one line, for what cannot be decoded."""
    if not prompt:
        raise ValueError("the prompt is empty: give at least one token")
    if len(prompt) >= max_len:
        raise ValueError(f"the prompt has {len(prompt)} tokens: must be fewer than the context's {max_len}")
    check_fits(policy, model.size.n_layers)


class Places(NamedTuple):
    """The positions of a pass or of a round's passes."""

    positions: torch.Tensor
    """[T] of a single row, else [B, T]."""
    ends: range | list[int]
    """Of each of the T the largest position of a row, plus 1."""

    def at(self, i: int) -> "Places":
        """The i-th of them alone."""
        return Places(self.positions[..., i : i + 1], self.ends[i : i + 1])


class Engine:
    """A model and its cache, used for one text after another, and for several at the same time."""

    def __init__(self, model: InferenceLlama, max_len: int | None = None, batch_size: int = 1) -> None:
        """Room for `max_len` positions (None: the model's whole context) of `batch_size` texts."""
        self.model, self.batch_size = model, batch_size
        self.cache: KVCache = model.new_cache(max_len or model.size.max_seq_len, batch_size)
        self.positions = torch.arange(self.cache.max_len, device=model.device)
        self.sessions: dict[Policy, Session] = {}
        """What each policy has learned, over all texts."""

    def generate(
        self, prompt: Sequence[int], policy: Policy, stop: StopRule, sampling: SamplingOptions | None = None
    ) -> Iterator[Round]:
        """Decode a prompt round by round.

        Ends at `stop` or at the end of the context. Raises ValueError for a prompt or policy that cannot be decoded.
        """
        check_decodable_by(self.model, policy, prompt, self.cache.max_len)
        request = Request(prompt, stop, sampling or SamplingOptions())
        return (round_ for rounds in self.generate_all([request], policy) for _, round_ in rounds)

    def generate_all(self, requests: Iterable[Request], policy: Policy) -> Iterator[list[tuple[int, Round]]]:
        """Decode many prompts, `batch_size` at a time: each text is the one that its request alone would give.

        A request is taken from `requests` when a text before it has ended, so that they may be many, or come late.

        Yields:
            What the same passes have given: for each text (number of its request from 0, its round); of a prompt's
            first round one alone.

        Raises ValueError for a prompt or policy that cannot be decoded, when its turn comes.
        """
        waiting, rows = enumerate(requests), list[Row]()
        while True:
            while len(rows) < self.batch_size and (first := next(waiting, None)):
                number, request = first
                check_decodable_by(self.model, policy, request.prompt, self.cache.max_len)
                rows.append(Row(number, request, Sampler(request.sampling, self.model.device)))
                yield [(number, self._take(rows, len(rows) - 1, self._prefill(rows, policy)))]
                self._leave(rows)
            if not rows:
                return
            rounds = self._round(rows, self.session(policy))
            yield [(rows[i].number, self._take(rows, i, round_)) for i, round_ in enumerate(rounds)]
            self._leave(rows)

    def session(self, policy: Policy) -> Session:
        """The policy's, made when it is first asked for."""
        if policy not in self.sessions:
            self.sessions[policy] = session(policy, self.model.size.n_layers)
        return self.sessions[policy]

    def _take(self, rows: list[Row], i: int, round_: Round) -> Round:
        # The next token's position is the length; without room for it the context is full.
        return rows[i].take(round_, full=self.cache.lengths[i] >= self.cache.max_len)

    def _leave(self, rows: list[Row]) -> None:
        """Drop texts that have ended; the last row takes the place of one before it, so that no place is empty."""
        for i in reversed(range(len(rows))):
            if rows[i].ended:
                last = rows.pop()
                if i < len(rows):
                    rows[i] = last
                    self.cache.move(len(rows), i)

    @torch.inference_mode()
    def _prefill(self, rows: list[Row], policy: Policy) -> Round:
        """All of the last row's prompt in one pass; the head on its last position alone."""
        model, number, row = self.model, len(rows) - 1, rows[-1]
        n, layers = len(row.request.prompt), range(deciding_layers(policy, model.size.n_layers))
        tokens = torch.tensor([row.request.prompt], device=model.device)
        x = model.run(model.embed(tokens), self.cache.row(number), self.positions[:n], n, layers)
        self.cache.lengths[number] = n
        return Round(pick([row.sampler], model.logits(x[:, -1])), 0, 0)

    @torch.inference_mode()
    def _round(self, rows: list[Row], at_work: Session) -> list[Round]:
        """The next round of each row, as the policy plans it."""
        # The last token stands at position `length`, so drafts have room for this many less one.
        lengths = self.cache.lengths[: len(rows)]
        rooms = [min(self.cache.max_len - length, row.missing) - 1 for length, row in zip(lengths, rows, strict=True)]
        plan = at_work.plan(max(rooms))
        step = self._speculate if plan.num_speculations else self._one_token
        rounds, outcome = step(rows, rooms, plan)
        for i, round_ in enumerate(rounds):
            self.cache.lengths[i] += len(round_.tokens)
        at_work.learn(outcome)
        return rounds

    def _one_token(self, rows: list[Row], rooms: list[int], plan: Plan) -> tuple[list[Round], Outcome]:
        """The last tokens through the layers; the next ones from the head."""
        begun = perf_counter()
        x = self.draft(self._last(rows), self.places(len(rows), 1), plan.exit_layer)
        tokens = pick([row.sampler for row in rows], self.model.logits(x[:, 0]))
        outcome = Outcome(plan, 0, (0,) * len(rows), verify_seconds=perf_counter() - begun)
        return [Round([token], 0, 0) for token in tokens], outcome

    def _speculate(self, rows: list[Row], rooms: list[int], plan: Plan) -> tuple[list[Round], Outcome]:
        """Draft tokens, verify them, accept; a row with less room than others drafts on, and nothing comes of it."""
        begun = perf_counter()
        drafts, states = Drafts([row.sampler for row in rows], rooms), list[torch.Tensor]()
        places, tokens = self.places(len(rows), plan.num_speculations + 1), [self._last(rows)]
        confidences = list[list[float]]()
        while len(drafts) < plan.num_speculations:
            states.append(self.draft(tokens[-1], places.at(len(drafts)), plan.exit_layer))
            logits = self.model.logits(states[-1][:, 0])
            tokens.append(drafts.add(logits))
            if plan.stop_below is not None:
                # The token stays in the draft whatever it is, and only whether another follows depends on it. So each
                # drafted token is a draw from its whole q, which is what makes acceptance exact. Were the token itself
                # left out for its confidence, the others would be too frequent.
                confidences.append(drafts.confidences(logits))
                if max(confidences[-1]) < plan.stop_below:
                    break
        d = len(drafts)
        if plan.reuse_exit_states:
            # Of the last drafted token, too, the verification needs the exit state and the keys below it.
            states.append(self.draft(tokens[-1], places.at(d), plan.exit_layer))
        between = self._now() if plan.timed else None
        places = Places(places.positions[..., : d + 1], places.ends[: d + 1])
        if plan.reuse_exit_states:
            x = self.verify(torch.cat(states, 1), places, plan.exit_layer)
        else:
            x = self.run(self.model.embed(torch.cat(tokens, 1)), places, range(self.model.size.n_layers))
        # The one wait of the round.
        found = drafts.accept(self.model.logits(x))
        now = perf_counter()
        rounds = [
            Round(ids, n := len(ids) - 1 + len(rejected), len(ids) - 1, tuple(rejected), plan.exit_layer if n else None)
            for ids, rejected in found
        ]
        # Of a row with less room it is not known what would have become of all drafts.
        whole = [i for i, round_ in enumerate(rounds) if round_.n_drafted == d]
        outcome = Outcome(
            plan,
            d,
            tuple(rounds[i].n_accepted for i in whole),
            tuple(tuple(step[i] for step in confidences) for i in whole) if confidences else (),
            between and between - begun,
            between and now - between,
        )
        return rounds, outcome

    def _now(self) -> float:
        """Seconds, once the device has done what it has been given."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        return perf_counter()

    def _last(self, rows: list[Row]) -> torch.Tensor:
        """[B, 1]: the tokens that the cache does not have yet."""
        return torch.tensor([[row.last] for row in rows], device=self.model.device)

    def places(self, n_rows: int, width: int) -> Places:
        """Where the next `width` tokens of the first rows stand; at the spare position what has no room."""
        starts = self.cache.lengths[:n_rows]
        ends = range(max(starts) + 1, max(starts) + 1 + width)
        if n_rows == 1:
            return Places(self.positions[starts[0] : starts[0] + width], ends)
        spare = self.cache.max_len
        positions = [[min(start + i, spare) for i in range(width)] for start in starts]
        return Places(torch.tensor(positions, device=self.model.device), [min(end, spare + 1) for end in ends])

    def draft(self, tokens: torch.Tensor, places: Places, n_layers: int) -> torch.Tensor:
        """Tokens [B, 1] through the first layers; their states [B, 1, D]."""
        return self.run(self.model.embed(tokens), places, range(n_layers))

    def verify(self, states: torch.Tensor, places: Places, exit_layer: int) -> torch.Tensor:
        """Exit states [B, T, D] through the layers above the exit; [B, T, D]."""
        return self.run(states, places, range(exit_layer, self.model.size.n_layers))

    def run(self, x: torch.Tensor, places: Places, layers: range) -> torch.Tensor:
        """Some layers on x [B, T, D]."""
        return self.model.run(x, self.cache, places.positions, places.ends[-1], layers)
