"""The ways to decode, as rounds over one model and one cache, whose rows are texts of their own.

autoregressive   every token by all L layers
early exit       every token by the first E layers and the head
self-speculative the first E layers draft d tokens; the layers above verify all of them in one pass over the exit states
                 of the drafts; the agreeing prefix and one token of the full model are emitted. No block is computed
                 twice for a token, and the host waits once per round.

A round is the same passes for all rows, each at its own position. A text that ends makes place for the next prompt.
Invariant between rounds: the cache holds positions 0 .. length-1 of a row, and its last token is not yet among them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter

import torch

from eval.engine.choices import Drafts, pick
from eval.engine.drafting import first_layers
from eval.engine.passes import Compiled, Eager, Head, Kind, Outputs, Places
from eval.engine.policies.probes import NO_PROBES, Probes
from eval.engine.policies.session import session
from eval.engine.policy import DraftModel, Outcome, Plan, Policy, Session, Source, check_fits, deciding_layers
from eval.engine.rows import Request, Round, Row
from eval.engine.sampling import Sampler
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import StopRule
from models.inference import InferenceLlama
from models.kernels.few_tokens import FewTokens
from models.kv_cache import KVCache


def check_decodable_by(model: InferenceLlama, policy: Policy, prompt: Sequence[int], max_len: int) -> None:
    """Raise ValueError, in one line, for what cannot be decoded."""
    if not prompt:
        raise ValueError("the prompt is empty: give at least one token")
    if len(prompt) >= max_len:
        raise ValueError(f"the prompt has {len(prompt)} tokens: must be fewer than the context's {max_len}")
    check_fits(policy, model.size.n_layers)


class Engine:
    """A model and its cache, used for one text after another, and for several at the same time."""

    def __init__(
        self,
        model: InferenceLlama,
        max_len: int | None = None,
        batch_size: int = 1,
        *,
        compiled: bool = False,
        draft_model: InferenceLlama | None = None,
    ) -> None:
        """Room for `max_len` positions of `batch_size` texts.

        Args:
            model: decides.
            max_len: None: the model's whole context.
            batch_size: texts that are written at the same time.
            compiled: see eval.engine.passes.
            draft_model: see `DraftModel`.

        Raises ValueError for a draft model with another vocabulary.
        """
        if draft_model is not None and draft_model.size.vocab_size != model.size.vocab_size:
            raise ValueError(
                f"the draft model has a vocabulary of {draft_model.size.vocab_size:,}, the model one of"
                f" {model.size.vocab_size:,}: both must read and write the same tokens"
            )
        self.draft_model = draft_model
        self.drafting: dict[int, Engine] = {}
        """Engines of models that draft, by their number of layers."""
        self.model, self.batch_size, self.compiled = model, batch_size, compiled
        self.cache: KVCache = model.new_cache(max_len or model.size.max_seq_len, batch_size, layered=compiled)
        self.passes: Eager | Compiled = (Compiled if compiled else Eager)(model, self.cache)
        self.positions = torch.arange(self.cache.max_len, device=model.device)
        self.sessions: dict[Policy, Session] = {}
        """What each policy has learned, over all texts."""

    def generate(
        self, prompt: Sequence[int], policy: Policy, stop: StopRule, sampling: SamplingOptions | None = None
    ) -> Iterator[Round]:
        """Decode a prompt round by round.

        Ends at `stop` or at the end of the context. Raises ValueError for a prompt or policy that cannot be decoded.
        """
        self.check_decodable(prompt, policy)
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
        waiting, rows, at_work = enumerate(requests), list[Row](), self.session(policy)
        while True:
            while len(rows) < self.batch_size and (first := next(waiting, None)):
                number, request = first
                self.check_decodable(request.prompt, policy)
                rows.append(Row(number, request, self._sampler(request), request.stop.begin()))
                yield [(number, self._take(rows, len(rows) - 1, self._prefill(rows, policy)))]
                self._leave(rows)
            if not rows:
                return
            rounds = self._round(rows, at_work)
            yield [(rows[i].number, self._take(rows, i, round_)) for i, round_ in enumerate(rounds)]
            self._leave(rows)

    def check_decodable(self, prompt: Sequence[int], policy: Policy) -> None:
        """Raise ValueError, in one line, for what cannot be decoded."""
        check_decodable_by(self.model, policy, prompt, self.cache.max_len)
        if isinstance(policy, DraftModel):
            self.drafting_engine(policy.exit_layer)

    def drafting_engine(self, n_layers: int) -> "Engine":
        """The engine of the model that drafts. Raises ValueError for a number of layers that it cannot have."""
        other = self.draft_model
        most = self.model.size.n_layers if other is None else other.size.n_layers
        if not 1 <= n_layers <= most or (other is not None and n_layers != most):
            must = f"must lie in 1..{most}" if other is None else f"must be {most}, as the draft model has"
            raise ValueError(f"exit_layer={n_layers}: {must}")
        if n_layers not in self.drafting:
            model = first_layers(self.model, n_layers) if other is None else other
            max_len = min(self.cache.max_len, model.size.max_seq_len)
            self.drafting[n_layers] = Engine(model, max_len, self.batch_size, compiled=self.compiled)
        return self.drafting[n_layers]

    def _sampler(self, request: Request) -> Sampler:
        sampler = Sampler(request.sampling, self.model.device)
        sampler.begin(request.prompt, self.model.size.vocab_size)
        return sampler

    def session(self, policy: Policy) -> Session:
        """The policy's, made when it is first asked for."""
        if policy not in self.sessions:
            ids = self.model.draft_ids
            self.sessions[policy] = session(policy, self.model.size, None if ids is None else len(ids))
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
                    for other in self.drafting.values():
                        other.cache.lengths[len(rows)] = min(self.cache.lengths[i], other.cache.max_len)
                        other.cache.move(len(rows), i)

    @torch.inference_mode()
    def _prefill(self, rows: list[Row], policy: Policy) -> Round:
        """All of the last row's prompt in one pass; the head on its last position alone."""
        row, number = rows[-1], len(rows) - 1
        x = self._read(number, row.request.prompt, deciding_layers(policy, self.model.size.n_layers))
        if isinstance(policy, DraftModel):
            other = self.drafting_engine(policy.exit_layer)
            if len(row.request.prompt) <= other.cache.max_len:
                other._read(number, row.request.prompt, other.model.size.n_layers)
        return Round(pick([row.sampler], self.model.logits(x[:, -1])), 0, 0)

    def _read(self, number: int, prompt: Sequence[int], n_layers: int) -> torch.Tensor:
        """A prompt through some layers in one pass, into a row of the cache; [1, T, D]."""
        model, n = self.model, len(prompt)
        tokens = torch.tensor([list(prompt)], device=model.device)
        x = model.run(model.embed(tokens), self.cache.row(number), self.positions[:n], n, range(n_layers))
        self.cache.lengths[number] = n
        return x

    @torch.inference_mode()
    def _round(self, rows: list[Row], at_work: Session) -> list[Round]:
        """The next round of each row, as the policy plans it."""
        # The last token stands at position `length`, so drafts have room for this many less one.
        lengths = self.cache.lengths[: len(rows)]
        rooms = [min(self.cache.max_len - length, row.missing) - 1 for length, row in zip(lengths, rows, strict=True)]
        # Where shapes are static, a pass is as wide as where there is room.
        plan = at_work.plan(self.cache.max_len if self.compiled and max(rooms) else max(rooms))
        step = self._speculate if plan.num_speculations else self._one_token
        rounds, outcome = step(rows, rooms, plan)
        for i, round_ in enumerate(rounds):
            self.cache.lengths[i] += len(round_.tokens)
        at_work.learn(outcome)
        return rounds

    def _one_token(self, rows: list[Row], rooms: list[int], plan: Plan) -> tuple[list[Round], Outcome]:
        """The last tokens through the layers; the next ones from the head."""
        begun, places, samplers = perf_counter(), self.places(len(rows), 1), [row.sampler for row in rows]
        last = self._last(rows)
        if few := self.few(samplers, Head.full):
            choices = [sampler.choice(1) for sampler in samplers]
            found = few(last, self.cache, places.positions, plan.exit_layer, 1, choices, read_last=False)
            tokens = found.ids[:, 0].tolist()
        else:
            _, logits = self.below(last, places, plan.exit_layer, Head.full)
            tokens = pick(samplers, logits[: len(rows), 0])
        outcome = Outcome(plan, 0, (0,) * len(rows), verify_seconds=perf_counter() - begun)
        return [Round([token], 0, 0) for token in tokens], outcome

    def _speculate(self, rows: list[Row], rooms: list[int], plan: Plan) -> tuple[list[Round], Outcome]:
        """Draft tokens, verify them, accept; a row with less room than others drafts on, and nothing comes of it."""
        begun, width, probes = perf_counter(), plan.num_speculations + 1, Probes(plan.probe)
        below = probes if plan.reuse_exit_states else NO_PROBES
        places = self.places(len(rows), min(plan.num_speculations, max(rooms)) + 1)
        drafts, states, confidences = self._drafts(rows, rooms, plan, places, below)
        if not len(drafts):
            return self._one_token(rows, rooms, Plan(self.model.size.n_layers))
        d = len(drafts)
        between = self._now() if plan.timed else None
        if plan.reuse_exit_states:
            logits = self.verify(torch.cat(states, 1), places.at(0, d + 1), plan.exit_layer, width, probes)
        else:
            tokens = torch.cat([self._last(rows), *drafts.tokens], 1)
            logits = self.recompute(tokens, places.at(0, d + 1), width, probes)
        # The one wait of the round.
        found = drafts.accept(logits[: len(rows)])
        now = perf_counter()
        exit_layer = None if plan.source is Source.text else plan.exit_layer
        rounds = [
            Round(ids, n := len(ids) - 1 + len(rejected), len(ids) - 1, tuple(rejected), exit_layer if n else None)
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
            {
                e: tuple(rows[i].sampler.agreement(drafts_of[i, : rounds[i].n_accepted + 1], logits[i]) for i in whole)
                for e, states_of in probes.states.items()
                for drafts_of in [self.model.draft_logits(states_of)]
            },
        )
        return rounds, outcome

    def _drafts(
        self, rows: list[Row], rooms: list[int], plan: Plan, places: Places, probes: Probes
    ) -> tuple[Drafts, list[torch.Tensor], list[list[float]]]:
        """Drafts, their exit states and the last token's [B, n, D] if reused, and the confidences if asked for."""
        samplers, states, confidences = [row.sampler for row in rows], list[torch.Tensor](), list[list[float]]()
        if plan.source is Source.text:
            found = [row.following(plan.num_speculations) for row in rows]
            found += [[]] * (self._n_passed(len(rows)) - len(rows))
            return Drafts.known(samplers, rooms, found, self.model.size.vocab_size, self.model.device), [], []
        if plan.source is Source.model:
            logits_after = self.drafting_engine(plan.exit_layer)._following(rows, rooms, self.cache.lengths, plan)
        else:

            def logits_after(i: int, tokens: torch.Tensor) -> torch.Tensor:
                state, logits = self.below(tokens, places.at(i, i + 1), plan.exit_layer, Head.drafts, probes)
                states.append(state)
                return logits[:, 0]

        token, most = self._last(rows), min(plan.num_speculations, max(rooms))
        one_by_one = plan.source is Source.model or plan.stop_below is not None or probes.exits or not most
        if not one_by_one and (few := self.few(samplers, Head.drafts)):
            choices = [s.choice(min(room, most)) for s, room in zip(samplers, rooms, strict=True)]
            at, reads = places.positions, plan.reuse_exit_states
            chosen = few(token, self.cache, at, plan.exit_layer, most, choices, read_last=reads)
            return Drafts.of(samplers, rooms, chosen), [chosen.states], []
        drafts = Drafts(samplers, rooms)
        while len(drafts) < most:
            logits = logits_after(len(drafts), token)
            token = drafts.add(logits)
            if plan.stop_below is not None:
                # The token stays in the draft whatever it is, and only whether another follows depends on it. So each
                # drafted token is a draw from its whole q, which is what makes acceptance exact. Were the token itself
                # left out for its confidence, the others would be too frequent.
                confidences.append(drafts.confidences(logits[: len(rows)]))
                if max(confidences[-1]) < plan.stop_below:
                    break
        if plan.source is Source.first_layers and plan.reuse_exit_states and (d := len(drafts)):
            # Of the last drafted token, too, the verification needs the exit state and the keys below it.
            last = self.below(drafts.tokens[-1], places.at(d, d + 1), plan.exit_layer, Head.none, probes)
            states.append(last[0])
        return drafts, states, confidences

    def few(self, samplers: Sequence[Sampler], head: Head) -> FewTokens | None:
        """What chooses the tokens of some rows in one call; None where they are chosen by one operation after another.

        Args:
            samplers: of the rows.
            head: that the tokens go through, `full` or `drafts`.
        """
        few = self.model.few_drafts if head is Head.drafts else self.model.few_tokens
        fits = few is not None and few.takes(len(samplers), self.cache) and not self.compiled
        return few if fits and all(sampler.whole for sampler in samplers) else None

    def _following(
        self, rows: list[Row], rooms: list[int], lengths: list[int], plan: Plan
    ) -> Callable[[int, torch.Tensor], torch.Tensor]:
        """The model as the one that drafts: from (number of the draft, token before it [B, 1]) to logits [B, V].

        Args:
            rows: of the engine that decides.
            rooms: of them; made smaller where the context of this model is.
            lengths: of that engine's cache.
            plan: its plan.
        """
        # The last two tokens are read: the last but one may be a draft that nothing was drafted after.
        for i in range(len(rows)):
            rooms[i] = max(0, min(rooms[i], self.cache.max_len - lengths[i]))
            self.cache.lengths[i] = min(lengths[i], self.cache.max_len) - 1
        ends = [row.last_two for row in rows] + [[0, 0]] * (self._n_passed(len(rows)) - len(rows))
        last_two = torch.tensor(ends, device=self.model.device)
        places = self.places(len(rows), plan.num_speculations + 1)

        def logits_after(i: int, tokens: torch.Tensor) -> torch.Tensor:
            here = places.at(i + 1, i + 2) if i else places.at(0, 2)
            width = 1 if i else 2
            return self.recompute(tokens if i else last_two, here, width, head=Head.drafts)[:, -1]

        return logits_after

    def _now(self) -> float:
        """Seconds, once the device has done what it has been given."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        return perf_counter()

    def _last(self, rows: list[Row]) -> torch.Tensor:
        """[B, 1]: the tokens that the cache does not have yet."""
        tokens = [[row.last] for row in rows] + [[0]] * (self._n_passed(len(rows)) - len(rows))
        return torch.tensor(tokens, device=self.model.device)

    def _n_passed(self, n_rows: int) -> int:
        """Rows of a pass: those that have a text, or all where shapes are static."""
        return self.batch_size if self.compiled else n_rows

    def places(self, n_rows: int, width: int) -> Places:
        """Where the next `width` tokens of the first rows stand; at the spare position what has no room or no text."""
        starts, spare = self.cache.lengths[:n_rows], self.cache.max_len
        first_end = max(starts) + 1
        if n_rows == 1 and not self.compiled:
            return Places(self.positions[starts[0] : starts[0] + width], range(first_end, first_end + width))
        starts += [spare] * (self._n_passed(n_rows) - n_rows)
        positions = [[min(start + i, spare) for i in range(width)] for start in starts]
        ends = [min(first_end + i, spare + 1) for i in range(width)]
        return Places(torch.tensor(positions, device=self.model.device), ends)

    def below(
        self, tokens: torch.Tensor, places: Places, n_layers: int, head: Head, probes: Probes = NO_PROBES
    ) -> Outputs:
        """Tokens [B, 1] through the first layers and a head."""
        return self._pass(Kind(0, n_layers, head), tokens, places, 1, probes)

    def verify(
        self, states: torch.Tensor, places: Places, exit_layer: int, width: int, probes: Probes = NO_PROBES
    ) -> torch.Tensor:
        """Exit states [B, T, D] through the layers above the exit and the head; logits [B, T, V].

        `width` >= T is how many tokens were planned.
        """
        return self._pass(Kind(exit_layer, self.model.size.n_layers), states, places, width, probes)[1]

    def recompute(
        self, tokens: torch.Tensor, places: Places, width: int, probes: Probes = NO_PROBES, *, head: Head = Head.full
    ) -> torch.Tensor:
        """Tokens [B, T] through all layers and a head; logits [B, T, V]; `width` as in `verify`."""
        return self._pass(Kind(0, self.model.size.n_layers, head), tokens, places, width, probes)[1]

    def _pass(self, kind: Kind, x: torch.Tensor, places: Places, width: int, probes: Probes) -> Outputs:
        """A pass; one that is probed stops at each of the exits, which compiled passes do not."""
        if not probes.exits:
            return self.passes(kind, x, places, width)
        passes = Eager(self.model, self.cache)
        for exit_layer in probes.within(kind.start, kind.stop):
            x, _ = passes(Kind(kind.start, exit_layer, Head.none), x, places, width)
            probes.catch(exit_layer, x)
            kind = kind._replace(start=exit_layer)
        return passes(kind, x, places, width)
