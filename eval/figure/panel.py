"""What is drawn, as numbers: a figure is panels, a panel is lines, a line is bands over an axis."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from eval.figure.spread import Band


class Axis(Enum):
    """What a horizontal axis counts, with its label."""

    exits = "exit layer"
    tokens = "training tokens"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One arm in one panel."""

    arm: str
    """Its name in the legend."""
    x: Sequence[float]
    bands: Sequence[Band]
    notes: Sequence[str] = ()
    """A text for each point; none for a line without."""

    @property
    def n(self) -> int:
        """Seeds."""
        return max((found.n for found in self.bands), default=0)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes."""

    title: str
    label: str
    """Of the vertical axis."""
    axis: Axis
    lines: Sequence[Line]
    log: bool = False
    joined: bool = True
    """Whether points are joined and the spread is a band; else each point has a bar of its own."""
    reference: float | None = None
    """Height of a thin line across the panel."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A figure as numbers."""

    panels: Sequence[Panel]
    caption: str
    """One line below the panels: what is shown, of which seeds and which spread."""

    def as_json(self) -> list[dict[str, Any]]:
        """A row for each point."""
        return [
            {"panel": panel.title, "y": panel.label, "x": panel.axis.value, "arm": line.arm, "at": x}
            | found._asdict()
            | ({"note": line.notes[i]} if line.notes else {})
            for panel in self.panels
            for line in panel.lines
            for i, (x, found) in enumerate(zip(line.x, line.bands, strict=True))
        ]
