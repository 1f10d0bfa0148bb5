"""One HTML file from a view's style, script and data: no network, and no way for data to become markup or code."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from data.files import write_whole


def page(*, view: str, title: str, facts: Mapping[str, object], data: Mapping[str, Any]) -> str:
    """The HTML of a page.

    Args:
        view: `lens`, `drafts` or `compare`: names the script beside this file that draws the data.
        title: of the page.
        facts: what a result must state, by name; shown below the title.
        data: what the script draws; must be JSON without NaN.

    The page may run its own script and style alone, known by their hashes, and load nothing.
    """
    style = _read("style.css")
    script = '"use strict";\n{\n' + _read("common.js") + _read(f"{view}.js") + "}\n"
    policy = f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    return Template(_read("page.html")).substitute(
        policy=policy,
        title=escape(title),
        facts="\n".join(f"<span><b>{escape(name)}</b> {escape(_short(value))}</span>" for name, value in facts.items()),
        style=style,
        data=embedded(data),
        script=script,
    )


def write_page(path: Path, content: str) -> None:
    """Write a page; it is there as a whole or not at all."""
    write_whole(path, content.encode("utf-8"))


def embedded(data: Mapping[str, Any]) -> str:
    """JSON that can stand in a script element: no text in it ends the element or begins a comment."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for c in "<>&\u2028\u2029":
        text = text.replace(c, f"\\u{ord(c):04x}")
    return text


def _short(value: object) -> str:
    """A fact as it is read on a page: of a commit only the beginning."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{28}\b", r"\1", str(value))


def _read(name: str) -> str:
    return files("eval.pages").joinpath(name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode("utf-8")).digest()).decode()
