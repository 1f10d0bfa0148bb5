"""One HTML file from a style, a script and data: no network, and no way for data to become markup or code.

What the pages of training and evaluation have in common: page.html, style.css (colours, text, controls, tables, paper)
and common.js (elements, controls, moving by keyboard). A page adds a style and a script to them.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from string import Template
from typing import Any


def page(*, title: str, facts: Mapping[str, object], data: Mapping[str, Any], style: str, script: str) -> str:
    """The HTML of a page.

    Args:
        title: of the page.
        facts: what a result must state, by name; shown below the title.
        data: what the script draws; must be JSON without NaN.
        style: the page's rules, which follow those that all pages have.
        script: draws the data into <main>; what common.js defines is there.

    The page may run its script and style alone, known by their hashes, and load nothing.
    """
    style = _read("style.css") + style
    script = '"use strict";\n{\n' + _read("common.js") + script + "}\n"
    policy = f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    return Template(_read("page.html")).substitute(
        policy=policy,
        title=escape(title),
        facts="\n".join(
            f"<span><b>{escape(name)}</b> {escape(_short(value))}</span>"
            for name, value in facts.items()
            if value is not None
        ),
        style=style,
        data=embedded(data),
        script=script,
    )


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
    return files("conf.page").joinpath(name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode("utf-8")).digest()).decode()
