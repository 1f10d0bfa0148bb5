"""What was checked: which weights, which samples, how strictly, on which machine."""

from dataclasses import asdict, dataclass
from typing import Any

from conf.provenance import Provenance
from eval.tasks.task import Selection


@dataclass(frozen=True, kw_only=True)
class CheckFacts:
    """What correctness.json says besides its findings. The keys are the names of the fields."""

    checkpoint: str
    task: str
    n_samples: int
    seed: int
    batch_size: int
    """Texts that all but autoregressive decoding wrote at the same time."""
    near_tie: float
    """Where texts part, logits closer than so many steps of the dtype at their size are taken for rounding."""
    selection: Selection
    provenance: Provenance
    draft_vocab: int | None
    """Tokens that drafts were chosen from; None: all."""
    transformers: str | None
    """Version of transformers, if its generate was compared."""

    def as_json(self) -> dict[str, Any]:
        """What the file holds."""
        return {
            "checkpoint": self.checkpoint,
            "task": self.task,
            "n_samples": self.n_samples,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "near_tie": self.near_tie,
            **self.selection.as_json(),
            **asdict(self.provenance),
            **({"draft_vocab": self.draft_vocab} if self.draft_vocab else {}),
            **({"transformers": self.transformers} if self.transformers else {}),
        }
