"""Tables fit the screen: what does not fit stands below, under the same names."""

import os
import sys
from types import SimpleNamespace

import pytest

from eval.results import columns
from eval.results.columns import aligned, screen_width, wrapped

CELLS = [
    ["mode", "E", "a number", "another", "third"],
    ["plain", "16", "1", "2", "3"],
    ["drafts", "2", "10", "20", "30"],
]


def at(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "screen_width", lambda: width)


def test_what_fits_is_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    at(36, monkeypatch)
    assert aligned(CELLS, n_names=2) == [
        "mode     E  a number  another  third",
        "plain   16         1        2      3",
        "drafts   2        10       20     30",
    ]


def test_what_does_not_fit_stands_below(monkeypatch: pytest.MonkeyPatch) -> None:
    at(35, monkeypatch)
    assert aligned(CELLS, n_names=2) == [
        "mode     E  a number  another",
        "plain   16         1        2",
        "drafts   2        10       20",
        "",
        "mode     E  third",
        "plain   16      3",
        "drafts   2     30",
    ]
    at(5, monkeypatch)
    assert len(aligned(CELLS, n_names=2)) == 3 * 3 + 2, "a column that never fits stands alone"


def test_a_log_has_a_width_that_does_not_depend_on_who_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert screen_width() == 120, "no terminal"
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: True))
    assert screen_width() == 80
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((72, 20)))
    assert screen_width() == 72


def test_prose_is_wrapped_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    at(40, monkeypatch)
    path = "a-folder/" * 6
    assert wrapped(f"speed-up of what lies in {path} and more").split("\n") == [
        "speed-up of what lies in",
        path,
        "and more",
    ]
