"""Which exit and how many drafts give the most tokens per second, by what has been accepted and what passes have taken.

The rate of a round that drafts d tokens with E layers is

    (1 + a_1 + a_1 a_2 + ... + a_1 ... a_d) / (d t_draft(E) + t_last(E) + t_verify(E, d + 1))

tokens per second, a_i being the chance that the i-th draft is accepted if those before it are. a_i of the exit that
drafts is counted in every round. Of the other exits it comes from rounds that probe them: the states of a text pass by
every exit on their way up, so that an exit's opinion costs a head and no block.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from statistics import median

from eval.engine.policies.decayed import DecayedMean
from eval.engine.policy import MOST_DRAFTS, Outcome, Plan

RECENT = 15
"""Times of each kind of pass whose median counts, so that a pause of the machine is no slow pass."""
DECAY = 0.98
"""Weight of a draft's acceptance for each one that has come after it."""
PRIOR, STRENGTH = 0.7, 4.0
"""Acceptance before anything was seen, and the number of drafts that it counts for."""
FIRST_DRAFTS = (2, 6)
"""d of the rounds that try each exit at the beginning."""
PROBE_EVERY = 32
"""Rounds from one that probes to the next: its heads and stops cost a quarter of a round on the demo."""
PROBE_STEPS = 5
"""How often what was seen of an exit before decays by a probe: probes are rare, and the text has changed since."""
CHOOSE_EVERY = 8
"""Rounds from one choice to the next; a choice takes 0.2 ms."""
PLAIN_EVERY = 32
"""Where plain decoding is the fastest, one round in so many drafts all the same, since texts change."""


def exits_to_try(n_layers: int) -> tuple[int, ...]:
    """An eighth, three sixteenths, a quarter, three eighths and half of the layers; fewer in a small model."""
    return tuple(sorted({min(n_layers - 1, max(1, round(n_layers * part / 16))) for part in (2, 3, 4, 6, 8)}))


def expected_tokens(chances: Iterable[float]) -> list[float]:
    """Tokens of a round with 0, 1, 2, ... drafts: 1, 1 + a_1, 1 + a_1 + a_1 a_2, ..."""
    tokens, reached = [1.0], 1.0
    for chance in chances:
        reached *= chance
        tokens.append(tokens[-1] + reached)
    return tokens


class Acceptance:
    """The chance of each position of one exit's drafts."""

    def __init__(self) -> None:
        self.positions: list[DecayedMean] = [DecayedMean(DECAY) for _ in range(MOST_DRAFTS)]

    def learn(self, chances: Sequence[float], steps: int = 1) -> None:
        """A draft's chances of acceptance, in order: 1, 1, 0 where the third was rejected. Older ones decay so often.

        A position counts as much as it is likely to be reached. What was seen of one that is no longer reached is
        forgotten, so that an unlucky first draft does not keep it from being tried again.
        """
        reached = 1.0
        for i, position in enumerate(self.positions):
            chance = chances[i] if i < len(chances) else 0.0
            position.add(chance, reached if i < len(chances) else 0.0, steps)
            reached *= chance

    def chances(self) -> list[float]:
        """a_1, ..., a_MOST_DRAFTS. A position that is seldom reached is expected to be like the one before."""
        found, prior = [], PRIOR
        for position in self.positions:
            prior = position.shrunk(prior, STRENGTH)
            found.append(prior)
        return found


class RoundTimes:
    """Seconds of drafts by exit, and of verifications by width, in medians of the last ones.

    Args:
        n_layers: L.
        head: the head's cost in blocks (models.speculation.head_cost), which sets a pass of all layers above an exit
            against those of another.
        draft_head: that of the head of drafts, which sets the last pass of a draft, which needs none, against the
            others.
    """

    def __init__(self, n_layers: int, head: float, draft_head: float) -> None:
        self.n_layers, self.head, self.draft_head = n_layers, head, draft_head
        self._drafts: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))
        self._verify: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))
        self._plain: deque[float] = deque(maxlen=RECENT)

    def learn(self, outcome: Outcome) -> None:
        """From the times of a round, if it has any."""
        plan, d = outcome.plan, outcome.n_drafted
        if outcome.verify_seconds is None or outcome.agreements:
            return
        if not d:
            self._plain.append(outcome.verify_seconds)
        elif outcome.draft_seconds is not None:
            self._drafts[plan.exit_layer].append(outcome.draft_seconds / self._drafts_worth(plan.exit_layer, d))
            self._verify[d + 1].append(outcome.verify_seconds / self._blocks_above(plan.exit_layer))

    def known(self, exits: Iterable[int]) -> bool:
        """Whether plain decoding and these exits have been timed."""
        return bool(self._plain) and all(self._drafts[e] for e in exits)

    def plain(self) -> float:
        """A token without a draft."""
        return median(self._plain)

    def rounds(self, exit_layer: int) -> list[float]:
        """Rounds of 1, 2, ..., MOST_DRAFTS drafts of an exit that has been timed."""
        draft, above = median(self._drafts[exit_layer]), self._blocks_above(exit_layer)
        verify = self._verify_by_width()
        return [draft * self._drafts_worth(exit_layer, d) + above * verify[d - 1] for d in range(1, MOST_DRAFTS + 1)]

    def _drafts_worth(self, exit_layer: int, d: int) -> float:
        """A round's passes below the exit in passes with a head."""
        return d + exit_layer / (exit_layer + self.draft_head)

    def _blocks_above(self, exit_layer: int) -> float:
        return self.n_layers - exit_layer + self.head

    def _verify_by_width(self) -> list[float]:
        """Seconds of a block, for 2, 3, ... tokens: a straight line through the medians of the measured widths."""
        points = [(width, median(times), len(times)) for width, times in self._verify.items()]
        n = sum(weight for *_, weight in points)
        x_mean = sum(x * w for x, _, w in points) / n
        y_mean = sum(y * w for _, y, w in points) / n
        spread = sum(w * (x - x_mean) ** 2 for x, _, w in points)
        slope = sum(w * (x - x_mean) * (y - y_mean) for x, y, w in points) / spread if spread else 0.0
        # A wider pass is never faster; where noise says so, all widths take the same.
        slope = max(0.0, slope)
        least = min(y for _, y, _ in points) / 2
        return [max(least, y_mean + slope * (width - x_mean)) for width in range(2, MOST_DRAFTS + 2)]


class Dynamic:
    """The session of `DynamicExit`."""

    def __init__(self, exits: Sequence[int], n_layers: int, head: float, draft_head: float) -> None:
        self.exits, self.n_layers = tuple(exits), n_layers
        self.acceptance = {e: Acceptance() for e in exits}
        self.times = RoundTimes(n_layers, head, draft_head)
        self._plain = Plan(n_layers, timed=True)
        # Each exit with few and with many drafts, and plain decoding, once for its time and once more against noise.
        tries = [Plan(e, d, timed=True) for d in FIRST_DRAFTS for e in exits]
        self._first = deque([self._plain, *tries, self._plain])
        self._chosen = self._best_drafting = tries[0]
        self._rounds = 0

    def plan(self, room: int) -> Plan:
        """The fastest round by what is known; at the beginning every exit in turn, and now and then a probe."""
        if not room:
            return self._plain
        plan = self._first[0] if self._first else self._chosen
        if not self._first:
            if not plan.num_speculations and self._rounds % PLAIN_EVERY == 0:
                plan = self._best_drafting
            if plan.num_speculations and self._rounds % PROBE_EVERY == 0:
                plan = plan._replace(probe=tuple(e for e in self.exits if e != plan.exit_layer), timed=False)
        return plan if plan.num_speculations <= room else plan._replace(num_speculations=room)

    def learn(self, outcome: Outcome) -> None:
        """Count what was accepted, note the times, and choose anew if that is due."""
        self._rounds += 1
        if self._first and self._first[0].exit_layer == outcome.plan.exit_layer:
            self._first.popleft()
        self.times.learn(outcome)
        if (d := outcome.n_drafted) > 0:
            own = self.acceptance[outcome.plan.exit_layer]
            for n in outcome.n_accepted:
                own.learn([1.0] * n + [0.0] * (n < d))
            for exit_layer, rows in outcome.agreements.items():
                for row in rows:
                    self.acceptance[exit_layer].learn(row, PROBE_STEPS)
        if not self._first and self._rounds % CHOOSE_EVERY == 0 and self.times.known(self.exits):
            self._choose()

    def rates(self) -> dict[tuple[int, int], float]:
        """(E, d) -> tokens per second; d = 0 with E = L is plain decoding."""
        found = {(self.n_layers, 0): 1 / self.times.plain()}
        for e in self.exits:
            tokens = expected_tokens(self.acceptance[e].chances())
            seconds = self.times.rounds(e)
            found |= {(e, d): tokens[d] / seconds[d - 1] for d in range(1, MOST_DRAFTS + 1)}
        return found

    def _choose(self) -> None:
        rates = self.rates()
        e, d = max(rates, key=rates.__getitem__)
        best = max((key for key in rates if key[1]), key=rates.__getitem__)
        self._chosen = Plan(e, d, timed=True)
        self._best_drafting = Plan(*best, timed=True)
