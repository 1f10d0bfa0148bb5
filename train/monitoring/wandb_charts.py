"""Charts for W&B in which all exits, or all layers, are one picture: a line each over the steps, and curves over depth.

W&B draws a chart of its own for each metric, which for 32 layers are hundreds. These are custom charts, which show in
every workspace; their tables are logged with a validation.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wandb.plot.custom_chart import CustomChart

# Less val/loss and val/bpb, which are the perplexity in other units.
OF_VALIDATION = re.compile(r"(val/(?!loss/|bpb/)\w+)/exit_(\d+)")
BY_EXIT = re.compile(rf"{OF_VALIDATION.pattern}|(train/loss|train/exit_weight)/exit_(\d+)")
BY_LAYER = re.compile(r"(train/layer_grad_norm|train/dropout)/layer_(\d+)")
POINTS = 50
"""Of a line, at most: a table of 32 exits has 1,600 rows."""
CURVES = 6
"""Over depth, of so many validations at most."""


def families(rows: Sequence[Mapping[str, Any]], pattern: re.Pattern[str]) -> dict[str, dict[int, str]]:
    """Metrics that differ in their exit or layer alone: train/loss -> {3: train/loss/exit_03, ...}, by depth."""
    names = sorted({name for row in rows for name in row})
    found: dict[str, dict[int, str]] = {}
    for name, match in ((name, pattern.fullmatch(name)) for name in names):
        if match:
            family, depth = (group for group in match.groups() if group)
            found.setdefault(family, {})[int(depth)] = name
    return {family: dict(sorted(members.items())) for family, members in found.items()}


def spread_evenly(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many items, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def over_steps(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, "CustomChart"]]:
    """A chart for each family of metrics, with a line for each exit or layer."""
    for section, pattern in (("by_exit", BY_EXIT), ("by_layer", BY_LAYER)):
        for family, members in families(rows, pattern).items():
            of_family = [row for row in rows if any(name in row for name in members.values())]
            lines = {}
            for name in members.values():
                points = spread_evenly([(row["step"], row[name]) for row in of_family if name in row], POINTS)
                lines[name.rpartition("/")[2]] = points
            yield f"{section}/{_title(family)}_over_steps", _chart(lines, f"{family} over steps", "step")


def over_depth(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, "CustomChart"]]:
    """A chart for each family of the validation's metrics: over the exit layer, the last validation and some before."""
    validations = [row for row in rows if "val/tokens" in row]
    for family, members in families(validations, OF_VALIDATION).items():
        of_family = [row for row in validations if any(name in row for name in members.values())]
        lines = {
            f"step {row['step']:,}": [(layer, row[name]) for layer, name in members.items() if name in row]
            for row in spread_evenly(of_family, CURVES)
        }
        yield f"by_exit/{_title(family)}_over_depth", _chart(lines, f"{family} by exit layer", "exit layer")


def _title(family: str) -> str:
    return {"train/loss": "train_loss", "train/layer_grad_norm": "grad_norm"}.get(family, family.partition("/")[2])


def _chart(lines: Mapping[str, Sequence[tuple[float, float]]], title: str, x: str) -> "CustomChart":
    from wandb import plot

    xs = [[point[0] for point in points] for points in lines.values()]
    ys = [[point[1] for point in points] for points in lines.values()]
    return plot.line_series(xs, ys, keys=list(lines), title=title, xname=x, split_table=True)
