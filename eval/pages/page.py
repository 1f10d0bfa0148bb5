"""A result of evaluation as a page."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from conf.page.page import page as html_page
from data.files import write_whole


def page(*, view: str, title: str, facts: Mapping[str, object], data: Mapping[str, Any]) -> str:
    """The HTML of a page.

    Args:
        view: `lens`, `drafts` or `compare`: names the script beside this file that draws the data.
        title: of the page.
        facts: what a result must state, by name; shown below the title.
        data: what the script draws; must be JSON without NaN.
    """
    script = _read("tokens.js") + _read(f"{view}.js")
    return html_page(title=title, facts=facts, data=data, style=_read("style.css"), script=script)


def write_page(path: Path, content: str) -> None:
    """Write a page; it is there as a whole or not at all."""
    write_whole(path, content.encode("utf-8"))


def _read(name: str) -> str:
    return files("eval.pages").joinpath(name).read_text(encoding="utf-8")
