"""What all numbers of one measurement have in common."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from conf.provenance import Provenance
from eval.tasks.task import Selection


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Which weights, which samples, which machine and code. Every row of a result file repeats them."""

    checkpoint: str
    baseline: str | None = None
    """The second checkpoint, if one was decoded beside it."""
    chat: bool = False
    """Whether prompts were asked as a user's turn."""
    sampling: str | None = None
    """How tokens were chosen, `temperature=1 top_p=0.9`; None: plain greedy decoding."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """Scores of the user's own: dotted path -> digest of its file."""
    selection: Selection
    provenance: Provenance
    transformers: str | None = None
    """Version of transformers, if its generate was timed beside the engine."""
    batch_size: int = 1
    """Texts decoded at the same time."""
    compiled: bool = False
    """Whether the passes are compiled (eval.engine.passes)."""
    draft_vocab: int | None = None
    """Tokens that drafts were chosen from; None: all."""
    samples_file: str | None = None
    """Name of the file with a line for each sample and setting."""

    def as_json(self) -> dict[str, Any]:
        """What result files hold, without what was not used."""
        optional: dict[str, Any] = {"baseline": self.baseline, "chat": self.chat, "sampling": self.sampling}
        optional |= {"metrics": dict(self.metrics), "draft_vocab": self.draft_vocab}
        last = {"transformers": self.transformers, "samples_file": self.samples_file}
        return {
            "checkpoint": self.checkpoint,
            "batch_size": self.batch_size,
            "compiled": self.compiled,
            **{name: value for name, value in optional.items() if value},
            **self.selection.as_json(),
            **asdict(self.provenance),
            **{name: value for name, value in last.items() if value},
        }
