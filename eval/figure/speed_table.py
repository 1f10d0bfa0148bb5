"""Speed and quality as tables: Markdown and LaTeX for people, CSV with every setting for programs."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from eval.figure.config import Spread
from eval.figure.speed_plot import intervals
from eval.figure.speed_rows import NUMBERS, OF_MEANS, SPEEDUP, SpeedRow, best_drafts, metrics_in
from eval.figure.spread import Band
from eval.results.bootstrap import Estimate
from eval.results.columns import piped
from eval.results.row import flat

LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}"}


class Column(NamedTuple):
    """One number of each row."""

    heading: str
    text: Callable[[SpeedRow], str]
    is_name: bool = False


def markdown(rows: Sequence[SpeedRow], spread: Spread) -> str:
    """A table for each task, the fastest d of each exit layer, with a line that says what was measured on what."""
    parts = []
    for task, its, columns in _tables(rows):
        cells = [[column.heading for column in columns], *([column.text(row) for column in columns] for row in its)]
        lines = piped(cells, sum(column.is_name for column in columns))
        parts.append("\n".join([f"**{task}**", "", *lines, "", _note(its, spread)]))
    return "\n\n".join(parts) + "\n"


def latex(rows: Sequence[SpeedRow], spread: Spread) -> str:
    """The same as tables of booktabs."""
    parts = [r"% \usepackage{booktabs}"]
    for task, its, columns in _tables(rows):
        lines = [r"\begin{table}", r"\centering", r"\small"]
        lines.append(r"\begin{tabular}{" + "".join("l" if c.is_name else "r" for c in columns) + "}")
        lines += [r"\toprule", _latex_line([column.heading for column in columns]), r"\midrule"]
        for before, row in zip([None, *its], its, strict=False):
            if before is not None and before.arm != row.arm:
                lines.append(r"\midrule")
            lines.append(_latex_line([column.text(row) for column in columns]))
        lines += [
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{_escaped(f'{task}: {_note(its, spread)}')}}}",
            r"\end{table}",
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def every_setting(rows: Sequence[SpeedRow]) -> list[dict[str, Any]]:
    """For a CSV file: NAME, NAME_low and NAME_high of each number, and n, of every setting."""
    names = [*metrics_in(rows), *NUMBERS]
    return [
        {"task": row.task, "arm": row.arm, "n": row.n} | row.setting._asdict() | flat(_estimates(row, names))
        for row in rows
    ]


def _estimates(row: SpeedRow, names: Sequence[str]) -> dict[str, Estimate]:
    return {name: row.numbers[name].estimate for name in names if name in row.numbers}


def _tables(rows: Sequence[SpeedRow]) -> list[tuple[str, list[SpeedRow], list[Column]]]:
    best = best_drafts(rows)
    found = []
    for task in dict.fromkeys(row.task for row in best):
        its = [row for row in best if row.task == task]
        found.append((task, its, _columns(its)))
    return found


def _columns(rows: Sequence[SpeedRow]) -> list[Column]:
    columns = [
        Column("arm", lambda row: row.arm, is_name=True),
        Column("decoding", lambda row: row.setting.mode.replace("_", "-"), is_name=True),
        Column("E", lambda row: str(row.setting.exit_layer)),
        Column("d", lambda row: str(row.setting.num_speculations or "-")),
    ]
    columns += [_number(name, name, 3) for name in metrics_in(rows)]
    columns.append(Column("accepted", lambda row: _share(row.numbers.get("acceptance_rate"))))
    columns.append(_number("tokens_per_second", "tokens/s", 0))
    columns.append(_number("ms_per_token", "ms/token", 2))
    columns.append(_number(SPEEDUP, "speed-up", 2))
    columns.append(_number(OF_MEANS, "of means", 2))
    over = "speedup_of_means_over_baseline"
    if any(over in row.numbers for row in rows):
        columns.append(_number(over, "over baseline", 2))
    if len({row.n for row in rows}) > 1:
        columns.append(Column("n", lambda row: str(row.n)))
    return columns


def _number(name: str, heading: str, digits: int) -> Column:
    return Column(heading, lambda row: row.numbers[name].text(f",.{digits}f") if name in row.numbers else "-")


def _share(found: Band | None) -> str:
    return "-" if found is None else f"{found.mean:.1%}"


def _note(rows: Sequence[SpeedRow], spread: Spread) -> str:
    return (
        "Speed-up: median over prompts of the ratio to autoregressive decoding with the same weights; of means: ratio"
        " of the mean times per token, as in the paper; self-speculation at the fastest d of each E. [ ]:"
        f" {intervals(rows, spread)}."
        f" {'; '.join(dict.fromkeys(row.facts for row in rows))}."
    )


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(map(_escaped, cells)) + r" \\"


def _escaped(text: str) -> str:
    return "".join(LATEX.get(c, c) for c in text.replace("\\", "/"))
