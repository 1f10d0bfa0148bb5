"""docs/configuration.md is what the dataclasses say today, and says something of every key and every choice."""

import re
from dataclasses import dataclass
from enum import StrEnum

from test_layout import ENTRIES

from docs.make_reference import PAGE, commands, docstrings, reference


def test_the_page_is_that_of_the_code() -> None:
    assert PAGE.read_text() == reference(), "run `make docs`"


def test_every_command_is_there_with_a_text_for_each_key_and_choice() -> None:
    page = PAGE.read_text()
    assert {c.module for c in commands()} == ENTRIES
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 300
    empty = [row for row in rows if re.search(r"\| *(`auto`:.*)?\|$", row)]
    assert not empty, "give the key a docstring, or the file a comment at its head"
    for key in ("train.seq_len", "layer_dropout.p_max", "early_exit.rotation_period", "data.sources.NAME.weight"):
        assert sum(row.startswith(f"| `{key}` |") for row in rows) == 1


def test_links_of_the_page_lead_to_its_headings() -> None:
    page = PAGE.read_text()
    titles = [line.lstrip("# ") for line in page.splitlines() if line.startswith("#")]
    anchors: list[str] = []
    for title in titles:
        name = re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        n_same = sum(re.fullmatch(rf"{re.escape(name)}(-\d+)?", a) is not None for a in anchors)
        anchors.append(f"{name}-{n_same}" if n_same else name)
    links = set(re.findall(r"\]\(#([\w-]+)\)", page))
    assert links
    assert links <= set(anchors)


def test_texts_are_read_below_what_they_describe() -> None:
    class Colour(StrEnum):
        red = "red"
        """Like blood."""
        blue = "blue"

    @dataclass
    class Base:
        a: int
        """Of the base,
        over two lines."""

    @dataclass
    class Derived(Base):
        b: Colour = Colour.red
        c: int = 3
        """Of c."""

    assert docstrings(Colour) == {"red": "Like blood."}
    assert docstrings(Derived) == {"a": "Of the base, over two lines.", "c": "Of c."}
