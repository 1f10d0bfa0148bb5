"""e~(t, l) against equation 6 and the shares that the paper's settings imply."""

from fractions import Fraction

import pytest

from train.recipe.curriculum import Curriculum, EarlyExitConfig
from train.recipe.exit_weights import exit_weights, first_step_without_weight, layer_weight


def every_exit(e_scale: float) -> EarlyExitConfig:
    return EarlyExitConfig(curriculum=Curriculum.all, e_scale=e_scale)


def test_by_hand() -> None:
    # L = 4, e_scale = 1/2: e = 0, 1/2, 3/2, 3 + 1/2 * 3 = 9/2; sum 13/2
    assert [layer_weight(layer, 4, 0.5) for layer in range(4)] == [0.0, 0.5, 1.5, 4.5]
    weights = exit_weights(every_exit(0.5), 0, 4, 10)
    assert weights == pytest.approx({1: 1 / 13, 2: 3 / 13, 3: 9 / 13})
    assert 0 not in weights, "e(0) = 0: an exit of weight zero is not computed"


@pytest.mark.parametrize("n_layers", [2, 5, 24, 40])
@pytest.mark.parametrize("e_scale", [0.1, 0.2, 1.0])
def test_against_the_sums_of_the_paper(n_layers: int, e_scale: float) -> None:
    scale = Fraction(e_scale)
    e = [scale * sum(range(layer + 1)) for layer in range(n_layers - 1)]
    e.append((n_layers - 1) + scale * sum(range(n_layers - 1)))
    weights = exit_weights(every_exit(e_scale), 0, n_layers, 10)
    expected = {layer: float(value / sum(e)) for layer, value in enumerate(e) if value}
    assert weights == pytest.approx(expected)


@pytest.mark.parametrize(
    ("n_layers", "e_scale", "share"),
    [(32, 0.2, 0.111), (32, 0.1, 0.135), (40, 0.1, 0.103), (24, 0.2, 0.154), (32, 1.0, 0.091), (16, 0.1, 0.313)],
)
def test_share_of_the_last_layer_with_every_exit_on(n_layers: int, e_scale: float, share: float) -> None:
    weights = exit_weights(every_exit(e_scale), 0, n_layers, 10)
    assert weights[n_layers - 1] == pytest.approx(share, abs=6e-4)


def test_share_of_the_last_layer_under_rotation() -> None:
    config = EarlyExitConfig(curriculum=Curriculum.rotational, e_scale=0.2, rotation_period=8)
    shares = [exit_weights(config, t, 32, 100)[31] for t in range(8)]
    assert min(shares) == pytest.approx(0.42, abs=0.01)
    assert max(shares) == pytest.approx(0.59, abs=0.01)


def test_zero_scale_is_ordinary_training() -> None:
    assert exit_weights(every_exit(0.0), 0, 6, 10) == {5: 1.0}


@pytest.mark.parametrize("curriculum", list(Curriculum))
def test_weights_sum_to_one_at_every_step(curriculum: Curriculum) -> None:
    period = 3 if curriculum is Curriculum.rotational else None
    config = EarlyExitConfig(curriculum=curriculum, e_scale=0.3, rotation_period=period)
    for step in range(20):
        assert sum(exit_weights(config, step, 7, 20).values()) == pytest.approx(1.0)
    assert first_step_without_weight(config, 7, 20) is None


def test_a_step_without_any_weight_is_found() -> None:
    # Only layer 0, whose weight is zero, is active at t = 0.
    config = EarlyExitConfig(curriculum=Curriculum.rotational, e_scale=0.3, rotation_period=6, include_last_layer=False)
    assert first_step_without_weight(config, 6, 100) == 0
    later = EarlyExitConfig(curriculum=Curriculum.rotational, e_scale=0.3, rotation_period=9, include_last_layer=False)
    assert exit_weights(later, 6, 6, 100) == {}
