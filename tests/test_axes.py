"""Pictures by exit layer: ticks at exits, values to read wherever they lie."""

from pathlib import Path

import matplotlib
import pytest
from matplotlib import pyplot as plt

from conf.axes import exit_ticks, label_values, log_ticks, short
from eval.depth.plot import Curve, plot_by_exit
from train.monitoring.plots import plot_perplexity_by_exit

matplotlib.use("Agg")


def axis_of(exits: list[int], values: list[float]) -> plt.Axes:
    figure, axis = plt.subplots()
    axis.plot(exits, values)
    exit_ticks(axis, exits)
    log_ticks(axis, values)
    label_values(axis, exits, values)
    figure.canvas.draw()
    plt.close(figure)
    return axis


@pytest.mark.parametrize("exits", [[4], [1, 2, 3, 4], [3, 6, 12, 30], list(range(1, 33)), list(range(2, 81))])
def test_ticks_are_exits_from_the_first_to_the_last(exits: list[int]) -> None:
    ticks = [round(t) for t in axis_of(exits, [2.0 + e for e in exits]).get_xticks()]
    assert set(ticks) <= set(exits)
    assert (ticks[0], ticks[-1]) == (exits[0], exits[-1])
    assert len(ticks) <= 17


@pytest.mark.parametrize("values", [[100.1, 98.0, 97.6], [5000.0, 40.0, 18.0], [2.5e9, 1.5e5, 18.0]])
def test_several_ticks_in_plain_numbers_at_any_range(values: list[float]) -> None:
    axis = axis_of([1, 2, 3], values)
    low, high = axis.get_ylim()
    shown = [label.get_text() for label in axis.get_yticklabels() if low <= label.get_position()[1] <= high]
    assert 3 <= len(shown) <= 12
    assert all(text and "$" not in text for text in shown)
    assert [text.get_text() for text in axis.texts] == [short(value) for value in values]


def test_labels_lie_within_the_frame() -> None:
    figure, axis = plt.subplots()
    exits = list(range(1, 17))
    values = [97.6 + 16 / e for e in exits]
    axis.plot(exits, values)
    log_ticks(axis, values)
    label_values(axis, exits, values)
    figure.canvas.draw()
    frame = axis.get_window_extent()
    for text in axis.texts:
        box = text.get_window_extent()
        assert frame.contains(box.x0, box.y0)
        assert frame.contains(box.x1, box.y1)
    plt.close(figure)


def test_both_pictures_of_exits_that_were_never_trained(tmp_path: Path) -> None:
    names = [f"val/ppl/exit_{e:02d}" for e in (2, 4)]
    plot_perplexity_by_exit([{"step": 1, "val/tokens": 1, names[0]: 1e10, names[1]: 30.0}], tmp_path / "a.png")
    curve = Curve(title="", label="perplexity", exits=[2, 4], values=[1e10, 30.0], log=True)
    plot_by_exit([curve], tmp_path / "b.png", "model, text")
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in (tmp_path / "a.png", tmp_path / "b.png"))
