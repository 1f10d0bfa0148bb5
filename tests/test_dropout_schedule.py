"""p(l, t) against values computed by hand from the paper's equations 2 to 4."""

import math

import pytest

from train.recipe.dropout_schedule import (
    DepthSchedule,
    LayerDropoutConfig,
    Rescale,
    TimeSchedule,
    branch_scale,
    dropout_probability,
)


def table(config: LayerDropoutConfig, step: int, n_layers: int, total_steps: int) -> list[float]:
    return [dropout_probability(config, layer, step, n_layers, total_steps) for layer in range(n_layers)]


def test_exponential_depth_by_hand() -> None:
    config = LayerDropoutConfig(p_max=0.2)
    # 2^(l/4) - 1 for l = 0..4, times 0.2
    by_hand = [0.0, 0.0378414, 0.0828427, 0.1363586, 0.2]
    assert table(config, 0, 5, 100) == pytest.approx(by_hand, abs=1e-7)
    assert table(config, 99, 5, 100) == pytest.approx(by_hand, abs=1e-7)


def test_equations_as_the_paper_writes_them() -> None:
    config = LayerDropoutConfig(p_max=0.1, time_schedule=TimeSchedule.exponential)
    n_layers, total_steps = 24, 50000
    for step in (0, 1, 12345, 49999):
        for layer in (0, 7, 23):
            s = math.exp(step * math.log(2) / (total_steps - 1)) - 1
            d = math.exp(layer * math.log(2) / (n_layers - 1)) - 1
            assert dropout_probability(config, layer, step, n_layers, total_steps) == pytest.approx(s * d * 0.1)


@pytest.mark.parametrize(("n_layers", "mean"), [(16, 0.4465), (24, 0.4452), (32, 0.4445), (40, 0.4442)])
def test_mean_over_depth(n_layers: int, mean: float) -> None:
    p = table(LayerDropoutConfig(p_max=0.5), 0, n_layers, 1)
    assert sum(p) / n_layers == pytest.approx(0.5 * mean, abs=5e-5)


@pytest.mark.parametrize(
    ("schedule", "first", "middle", "last"),
    [
        (TimeSchedule.constant, 1.0, 1.0, 1.0),
        (TimeSchedule.exponential, 0.0, math.sqrt(2) - 1, 1.0),
        (TimeSchedule.decreasing, 1.0, 0.5, 0.0),
    ],
)
def test_time_schedules(schedule: TimeSchedule, first: float, middle: float, last: float) -> None:
    config = LayerDropoutConfig(p_max=0.4, time_schedule=schedule)
    p = [dropout_probability(config, 3, step, 4, 11) for step in (0, 5, 10)]
    assert p == pytest.approx([0.4 * first, 0.4 * middle, 0.4 * last])


def test_other_depth_schedules() -> None:
    assert table(LayerDropoutConfig(p_max=0.3, depth_schedule=DepthSchedule.linear), 0, 4, 9) == pytest.approx(
        [0.0, 0.1, 0.2, 0.3]
    )
    assert table(LayerDropoutConfig(p_max=0.3, depth_schedule=DepthSchedule.constant), 0, 3, 9) == [0.3] * 3


def test_a_run_of_one_step_divides_by_nothing() -> None:
    for schedule in TimeSchedule:
        p = dropout_probability(LayerDropoutConfig(p_max=0.5, time_schedule=schedule), 1, 0, 2, 1)
        assert p == (0.0 if schedule is TimeSchedule.exponential else 0.5)


def test_rescale() -> None:
    assert branch_scale(LayerDropoutConfig(p_max=0.5), 0.5) == 1.0
    assert branch_scale(LayerDropoutConfig(p_max=0.5, rescale=Rescale.inverse_keep), 0.2) == pytest.approx(1.25)


@pytest.mark.parametrize("p_max", [-0.1, 1.0, 1.5, math.nan])
def test_impossible_p_max(p_max: float) -> None:
    with pytest.raises(ValueError, match=r"layer_dropout\.p_max.*below 1"):
        LayerDropoutConfig(p_max=p_max)
