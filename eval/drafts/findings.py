"""What is known of a measurement's drafts: the numbers that rejections.json lists, and the report and figure show.

docs/rejections.md describes the keys, which are the names of the fields here.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from conf.provenance import Provenance
from eval.results.bootstrap import Estimate
from eval.results.row import flat_part
from eval.tasks.task import Selection


@dataclass(frozen=True, kw_only=True)
class RejectionsSetting:
    """What was decoded with what."""

    checkpoint: str
    exit_layer: int
    n_layers: int
    num_speculations: int
    language: str
    """What words are: code or prose."""
    task: str
    n_samples: int
    seed: int
    temperature: float


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What became of all drafts; shares are None where nothing was drafted or judged."""

    rounds: int
    """Rounds that drafted something."""
    drafted: int
    accepted: int
    rejected: int
    after_rejection: int
    """Never judged, because an earlier draft of the round was rejected."""
    after_end: int
    """Never judged, because the text had ended."""
    acceptance_rate: Estimate | None
    """Accepted of all drafted."""
    acceptance: Estimate | None
    """Accepted of those judged."""
    near_ties: int
    unexplained: int


@dataclass(frozen=True, kw_only=True)
class DraftsPart:
    """The judged drafts that have one value: a class, a rank, a stretch of probability."""

    value: str
    judged: int
    accepted: int
    rejected: int
    acceptance: Estimate
    """Accepted of those judged."""
    share_of_judged: float
    share_of_rejections: float | None
    """It is None where nothing was rejected."""
    lost: int
    """Drafts after a rejected one, never judged."""
    n_samples: int


@dataclass(frozen=True, kw_only=True)
class DraftPositionPart(DraftsPart):
    """The judged drafts at one position of their rounds."""

    drafted: int
    """Rounds that drafted so far."""
    accepted_of_drafted: float


@dataclass(frozen=True, kw_only=True)
class Breakdowns:
    """A part for each value that occurs."""

    by_class: Sequence[DraftsPart]
    by_piece: Sequence[DraftsPart]
    by_class_and_piece: Sequence[DraftsPart]
    by_class_of_full: Sequence[DraftsPart]
    by_position: Sequence[DraftPositionPart]
    by_place: Sequence[DraftsPart]
    by_rank: Sequence[DraftsPart]
    by_full_probability: Sequence[DraftsPart]
    by_confidence: Sequence[DraftsPart]
    by_entropy: Sequence[DraftsPart]
    by_rank_of_full: Sequence[DraftsPart]

    def by_name(self) -> dict[str, Sequence[DraftsPart]]:
        """All of them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Rejected drafts of one class where the text has a token of another."""

    draft_class: str
    full_class: str
    rejected: int
    n_samples: int


@dataclass(frozen=True, kw_only=True)
class TokenPair:
    """A rejected draft and what the full model had instead."""

    draft: str
    full: str
    rejected: int
    n_samples: int


@dataclass(frozen=True, kw_only=True)
class Rejections:
    """All that was found."""

    setting: RejectionsSetting
    selection: Selection
    provenance: Provenance
    new_tokens: float
    """Mean length of the texts."""
    totals: Totals
    breakdowns: Breakdowns
    confusion: Sequence[Confusion]
    pairs: Sequence[TokenPair]
    """The most frequent ones."""
    samples_file: str

    def as_json(self) -> dict[str, Any]:
        """What a file holds."""
        return {
            **asdict(self.setting),
            **self.selection.as_json(),
            **asdict(self.provenance),
            "new_tokens": self.new_tokens,
            **flat_part(self.totals),
            **{name: [flat_part(part) for part in parts] for name, parts in self.breakdowns.by_name().items()},
            "confusion": [asdict(one) for one in self.confusion],
            "pairs": [asdict(pair) for pair in self.pairs],
            "samples_file": self.samples_file,
        }
