"""How many CPU threads to decode with: the number whose passes are fastest at the moment, timed again now and then.

No number is right for good. OpenMP's threads spin while they wait for each other. With a core each, two of them decode
the demo's small passes faster than one. Beside other load the one that computes waits for the one that only spins, and
two threads take many times as long as one.
"""

import time
from collections.abc import Callable
from statistics import median

import torch

from eval.engine.decoding import Engine
from eval.engine.one_pass import exit_states
from eval.engine.passes import Head
from models.inference import InferenceLlama

MOST = torch.get_num_threads()
"""The cores, or OMP_NUM_THREADS."""
INTERVAL = 5.0
"""Seconds between two choices, at least."""
SHARE = 50
"""A choice may cost 1/SHARE of the time between two."""
BUDGET = 0.25
"""Seconds that a choice takes, unless a single pass of each number takes longer."""
TIMED_PASSES = 7
"""Passes of each number, if the budget allows."""
WINDOW = 128
"""Tokens of a text that are passed at once to time it, at most."""
MARGIN = 0.97
"""More threads must take less than this share of the time, since they lose more where load comes in between."""

Probe = Callable[[], object]


def candidates(most: int) -> list[int]:
    """1, 2, 4, ... and `most` itself."""
    return [n for n in (1 << i for i in range(most.bit_length())) if n < most] + [most]


def fastest_threads(probe: Probe, counts: list[int], clock: Callable[[], float] = time.perf_counter) -> int:
    """The number of threads whose median time of `probe` is the shortest; leaves torch set to it.

    Args:
        probe: a pass like those to come, over in `BUDGET` if possible.
        counts: numbers of threads, ascending.
        clock: in seconds.
    """
    times: dict[int, list[float]] = {n: [] for n in counts}
    begun = clock()
    for _ in range(TIMED_PASSES):
        for n in counts:
            torch.set_num_threads(n)
            probe()  # wakes the threads up, uncounted
            start = clock()
            probe()
            times[n].append(clock() - start)
        if clock() - begun > BUDGET:
            break
    chosen = counts[0]
    for n in counts[1:]:
        if median(times[n]) < MARGIN * median(times[chosen]):
            chosen = n
    torch.set_num_threads(chosen)
    return chosen


class Threads:
    """Keeps torch set to the fastest number of threads, where the user has not fixed it and the CPU decodes."""

    def __init__(
        self,
        fixed: int | None,
        device: torch.device,
        probe: Probe,
        *,
        most: int = MOST,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Choose at once.

        Args:
            fixed: machine.threads; null: choose.
            device: that decodes.
            probe: see `fastest`.
            most: the largest number to try.
            clock: in seconds.
        """
        self._counts = candidates(most) if fixed is None and device.type == "cpu" else []
        self._probe, self._clock, self._due = probe, clock, clock()
        self.refresh()

    def refresh(self) -> None:
        """Choose again if that is due; to be called between two texts, whose times are compared within each."""
        start = self._clock()
        if len(self._counts) < 2 or start < self._due:
            return
        fastest_threads(self._probe, self._counts, self._clock)
        end = self._clock()
        self._due = end + max(INTERVAL, SHARE * (end - start))


def one_window(model: InferenceLlama, n_tokens: int) -> Probe:
    """A pass over some tokens of a text that is known, as likelihoods are computed."""
    tokens = torch.zeros(1, min(n_tokens, WINDOW), dtype=torch.int64, device=model.device)

    def probe() -> torch.Tensor:
        with torch.inference_mode():
            [states] = exit_states(model, tokens, [model.size.n_layers])
            return model.logits(states[0])

    return probe


def one_token(model: InferenceLlama) -> Probe:
    """A pass over one token, as autoregressive decoding makes them."""
    engine = Engine(model, min(64, model.size.max_seq_len))
    engine.cache.lengths[0] = engine.cache.max_len // 2
    token, place = torch.zeros(1, 1, dtype=torch.int64, device=model.device), engine.places(1, 1)

    def probe() -> torch.Tensor:
        with torch.inference_mode():
            return engine.below(token, place, model.size.n_layers, Head.full)[1]

    return probe
