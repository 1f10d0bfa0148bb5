"""Tables and lines as wide as the screen: what does not fit stands in another table below."""

import shutil
import sys
import textwrap
from collections.abc import Sequence

WIDTH = 120
"""Width of what is written into a file or a pipe."""
GAP = "  "


def screen_width() -> int:
    """Width of the terminal, or WIDTH where there is none."""
    return shutil.get_terminal_size((WIDTH, 0)).columns if sys.stdout.isatty() else WIDTH


def aligned(cells: Sequence[Sequence[str]], n_names: int = 1) -> list[str]:
    """Lines of columns, the first to the left, the others to the right.

    Args:
        cells: by line.
        n_names: so many columns name a line, and are repeated in each further table.
    """
    columns = []
    for i, column in enumerate(zip(*cells, strict=True)):
        width = max(map(len, column))
        columns.append([cell.rjust(width) if i else cell.ljust(width) for cell in column])
    return stacked(columns, n_names)


def stacked(columns: Sequence[Sequence[str]], n_names: int = 1) -> list[str]:
    """Lines of columns whose cells are already as wide as their column; a blank line between tables."""
    names, width = list(columns[:n_names]), screen_width()
    tables, table = [], list(names)
    for column in columns[n_names:]:
        wide = sum(len(c[0]) + len(GAP) for c in [*table, column]) - len(GAP)
        if wide > width and len(table) > n_names:
            tables.append(table)
            table = list(names)
        table.append(column)
    tables.append(table)
    lines = [[GAP.join(line).rstrip() for line in zip(*table, strict=True)] for table in tables]
    return [line for i, block in enumerate(lines) for line in ([""] if i else []) + block]


def wrapped(text: str) -> str:
    """A paragraph."""
    return textwrap.fill(text, max(40, screen_width()), break_long_words=False, break_on_hyphens=False)


def piped(cells: Sequence[Sequence[str]], n_names: int = 1) -> list[str]:
    """Lines of a Markdown table, the first of them its head; the first `n_names` columns to the left."""
    head, *lines = cells
    rule = ["---" if i < n_names else "---:" for i in range(len(head))]
    return ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in (head, rule, *lines)]
