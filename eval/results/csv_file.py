"""Rows as a CSV file."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.files import write_whole


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], first: Sequence[str] = ()) -> None:
    """Write one line for each row, with every column that any of them has, after those of `first`; no half file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys([*first, *(key for row in rows for key in row)])))
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue().encode())
