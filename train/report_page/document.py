"""The page of some runs, as HTML."""

import time
from collections.abc import Sequence
from importlib.resources import files

from conf.page.page import page
from train.report_page.content import content_of
from train.report_page.run_record import RunRecord

SCRIPTS = ("state.js", "lines.js", "heat.js", "report.js", "tables.js", "page.js")


def document(records: Sequence[RunRecord], refresh: float | None) -> str:
    """The HTML.

    Args:
        records: of the runs, which have been read.
        refresh: seconds until the page loads itself anew; None: it does not.
    """
    only = records[0] if len(records) == 1 else None
    title = f"Training run {only.name}" if only else f"{len(records)} training runs"
    data = content_of(records) | {"written": round(1000 * time.time()), "refresh": refresh}
    facts: dict[str, object] = {"written": time.strftime("%Y-%m-%d %H:%M:%S %Z")}
    if only:
        start = only.starts[-1] if only.starts else {}
        facts |= {"folder": only.folder}
        facts |= {key: start[key] for key in ("revision", "host", "ranks") if key in start}
    script = "".join(_read(name) for name in SCRIPTS)
    return page(title=title, facts=facts, data=data, style=_read("report.css"), script=script)


def _read(name: str) -> str:
    return files("train.report_page").joinpath(name).read_text(encoding="utf-8")
