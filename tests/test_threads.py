"""The number of threads follows what passes take, on a machine whose speed the test sets."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import tiny_model
from test_parity_hf import our_model

from eval.engine.threads import BUDGET, INTERVAL, SHARE, TIMED_PASSES, Threads, candidates, fastest_threads, one_token
from models.inference import InferenceLlama

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("threads_as_before")


class Machine:
    """A clock that only passes move on, by so many seconds for each number of threads."""

    def __init__(self, **seconds: float) -> None:
        self.now, self.n_passes = 0.0, 0
        self.seconds = {int(name.removeprefix("by_")): value for name, value in seconds.items()}

    def clock(self) -> float:
        return self.now

    def run(self) -> None:
        self.n_passes += 1
        self.now += self.seconds[torch.get_num_threads()]


@pytest.mark.parametrize(("most", "expected"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_candidates(most: int, expected: list[int]) -> None:
    assert candidates(most) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"by_1": 0.003, "by_2": 0.002}, 2),  # idle
        ({"by_1": 0.003, "by_2": 0.01}, 1),  # busy
        ({"by_1": 0.003, "by_2": 0.00295}, 1),  # a gain too small for its risk
        ({"by_1": 0.003, "by_2": 0.002, "by_4": 0.001}, 4),
    ],
)
def test_the_fastest_is_chosen_and_set(seconds: dict[str, float], expected: int) -> None:
    machine = Machine(**seconds)
    assert fastest_threads(machine.run, sorted(machine.seconds), machine.clock) == expected == torch.get_num_threads()
    assert machine.n_passes == 2 * TIMED_PASSES * len(seconds)


def test_long_passes_are_timed_once_each() -> None:
    machine = Machine(by_1=BUDGET, by_2=BUDGET / 2)
    assert fastest_threads(machine.run, [1, 2], machine.clock) == 2
    assert machine.n_passes == 4


def test_the_choice_follows_the_load_when_it_is_due() -> None:
    machine = Machine(by_1=0.003, by_2=0.002)
    threads = Threads(None, CPU, machine.run, most=2, clock=machine.clock)
    assert torch.get_num_threads() == 2
    machine.seconds[2] = 0.05  # other load has come
    machine.now += INTERVAL / 2
    threads.refresh()
    assert torch.get_num_threads() == 2, "not due yet"
    machine.now += INTERVAL
    threads.refresh()
    assert torch.get_num_threads() == 1
    machine.seconds[2] = 0.002  # and gone
    machine.now += SHARE * INTERVAL
    threads.refresh()
    assert torch.get_num_threads() == 2


def test_choosing_takes_a_small_share_of_the_time_with_a_large_model() -> None:
    machine = Machine(by_1=2.0, by_2=1.0)
    threads = Threads(None, CPU, machine.run, most=2, clock=machine.clock)
    n_passes, cost = machine.n_passes, machine.now
    machine.now += 0.9 * SHARE * cost
    threads.refresh()
    assert machine.n_passes == n_passes
    machine.now += 0.2 * SHARE * cost
    threads.refresh()
    assert machine.n_passes > n_passes


@pytest.mark.parametrize(("fixed", "device"), [(1, "cpu"), (None, "meta")])
def test_nothing_is_timed_where_there_is_nothing_to_choose(fixed: int | None, device: str) -> None:
    machine = Machine(by_1=0.003, by_2=0.002)
    Threads(fixed, torch.device(device), machine.run, most=2, clock=machine.clock)
    assert machine.n_passes == 0


def test_a_pass_over_one_token() -> None:
    size = tiny_model()
    logits = one_token(InferenceLlama(size, our_model(size).state_dict(), dtype=torch.float32, device=CPU))()
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (1, 1, size.vocab_size)


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "None")],
)
def test_training_spins_for_a_short_time_unless_the_user_says_otherwise(given: dict[str, str], expected: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")} | given
    program = "import train, os, sys; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    root = Path(__file__).parent.parent
    out = subprocess.check_output([sys.executable, "-c", program], cwd=root, env=environment, text=True)
    assert out.split() == [expected, "False"], "it must be set before torch is loaded"
