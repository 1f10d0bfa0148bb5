"""C(t, l) on tables made by hand."""

import itertools
from typing import Any

import pytest

from train.recipe.curriculum import Curriculum, EarlyExitConfig, active_layers, chosen_exits, gradual_start


def early_exit(curriculum: Curriculum, **options: object) -> EarlyExitConfig:
    return EarlyExitConfig(curriculum=curriculum, e_scale=0.5, **options)  # type: ignore[arg-type]


def every_layer(step: int, n_layers: int, total_steps: int) -> range:
    """A curriculum of a user's own."""
    return range(n_layers)


def test_none_is_the_last_layer_alone() -> None:
    for include in (True, False):
        assert active_layers(early_exit(Curriculum.none, include_last_layer=include), 3, 6, 10) == (5,)


def test_all() -> None:
    assert active_layers(early_exit(Curriculum.all), 3, 4, 10) == (0, 1, 2, 3)


def test_rotational_by_hand() -> None:
    config = early_exit(Curriculum.rotational, rotation_period=3)
    table = [active_layers(config, t, 7, 100) for t in range(4)]
    assert table == [(0, 3, 6), (1, 4, 6), (2, 5, 6), (0, 3, 6)]
    without = early_exit(Curriculum.rotational, rotation_period=3, include_last_layer=False)
    assert [active_layers(without, t, 7, 100) for t in range(4)] == [(0, 3, 6), (1, 4), (2, 5), (0, 3, 6)]


@pytest.mark.parametrize(("n_layers", "period"), [(32, 8), (40, 39), (24, 23), (32, 31), (32, 16)])
def test_rotational_of_the_paper_trains_each_layer_once_every_period(n_layers: int, period: int) -> None:
    config = early_exit(Curriculum.rotational, rotation_period=period)
    for layer in range(n_layers - 1):
        steps = [t for t in range(3 * period) if layer in active_layers(config, t, n_layers, 10**6)]
        assert len(steps) == 3
        assert {b - a for a, b in itertools.pairwise(steps)} == {period}
    counts = [len(active_layers(config, t, n_layers, 10**6)) for t in range(period)]
    assert max(counts) <= -(-n_layers // period) + 1


def test_without_a_period_it_is_one_less_than_the_layers() -> None:
    config = early_exit(Curriculum.rotational, include_last_layer=False)
    assert [active_layers(config, t, 5, 100) for t in range(6)] == [(0, 4), (1,), (2,), (3,), (0, 4), (1,)]


def test_chosen_exits_alone_take_turns() -> None:
    rotational = early_exit(Curriculum.rotational, exits=[2, 3, 5])
    assert [active_layers(rotational, t, 8, 100) for t in range(4)] == [(1, 7), (2, 7), (4, 7), (1, 7)]
    alone = early_exit(Curriculum.rotational, exits=[2, 5], include_last_layer=False)
    assert [active_layers(alone, t, 8, 100) for t in range(4)] == [(1,), (4,), (7,), (1,)]
    in_pairs = early_exit(Curriculum.rotational, exits=[2, 3, 5, 6], rotation_period=2)
    assert [active_layers(in_pairs, t, 8, 100) for t in range(3)] == [(1, 4, 7), (2, 5, 7), (1, 4, 7)]
    assert active_layers(early_exit(Curriculum.all, exits=[2, 5]), 0, 8, 100) == (1, 4, 7)
    gradual = early_exit(Curriculum.gradual, exits=[2, 4])
    assert [active_layers(gradual, t, 5, 100) for t in (0, 10, 29, 30)] == [(4,), (3, 4), (3, 4), (1, 3, 4)]


@pytest.mark.parametrize(
    ("exits", "options", "problem"),
    [
        ([], {}, r"early_exit.exits=\[\]: must be null, or numbers of layers, from 2 on"),
        ([0.0, 2.0], {}, "numbers of layers, from 2 on, or shares"),
        ([1.0, 2.0], {}, "numbers of layers, from 2 on, or shares"),
        ([2.5], {}, "numbers of layers, from 2 on, or shares"),
        ([-0.5], {}, "numbers of layers, from 2 on, or shares"),
        ([2.0], {"curriculum": Curriculum.none}, "early_exit.curriculum=none does not ask for exits"),
        ([2.0], {"curriculum": f"{__name__}:every_layer"}, "every_layer does not ask for exits"),
    ],
)
def test_exits_that_cannot_be(exits: list[float], options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        early_exit(**{"curriculum": Curriculum.all, "exits": exits, **options})


def test_exits_at_shares_of_the_layers() -> None:
    config = early_exit(Curriculum.rotational, exits=[0.125, 0.1875, 0.25, 0.5], include_last_layer=False)
    found = {n: chosen_exits(config, n) for n in (1, 2, 3, 6, 16, 32)}
    assert found == {1: [], 2: [], 3: [2], 6: [2, 3], 16: [2, 3, 4, 8], 32: [4, 6, 8, 16]}
    assert [active_layers(config, t, 6, 100) for t in range(4)] == [(1,), (2,), (5,), (1,)]
    assert active_layers(config, 3, 2, 100) == (1,)
    assert chosen_exits(early_exit(Curriculum.all, exits=[5, 0.5, 3]), 6) == [3, 5]


def test_gradual_by_hand() -> None:
    # T / (2L) = 10: layer 4 from step 0, 3 from 10, 2 from 20, 1 from 30, 0 from 40; all before T/2 = 50.
    config = early_exit(Curriculum.gradual)
    assert [gradual_start(layer, 5, 100) for layer in range(5)] == [40, 30, 20, 10, 0]
    assert active_layers(config, 0, 5, 100) == (4,)
    assert active_layers(config, 9, 5, 100) == (4,)
    assert active_layers(config, 10, 5, 100) == (3, 4)
    assert active_layers(config, 39, 5, 100) == (1, 2, 3, 4)
    assert active_layers(config, 40, 5, 100) == (0, 1, 2, 3, 4)


def test_gradual_rounds_up() -> None:
    # L = 3, T = 10: (2 - l) * 10 / 6 = 3.33, 1.67, 0
    assert [gradual_start(layer, 3, 10) for layer in range(3)] == [4, 2, 0]


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"curriculum": Curriculum.rotational, "rotation_period": 0}, "early_exit.rotation_period"),
        ({"curriculum": Curriculum.gradual, "rotation_period": 3}, "early_exit.rotation_period"),
        ({"e_scale": 1.5}, "early_exit.e_scale"),
        ({"e_scale": -0.1}, "early_exit.e_scale"),
    ],
)
def test_impossible_options_are_named(options: dict, key: str) -> None:
    with pytest.raises(ValueError, match=key):
        EarlyExitConfig(**options)
