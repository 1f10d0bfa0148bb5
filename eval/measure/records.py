"""What one setting did with one sample: a line of a measurement's .samples.jsonl."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from eval.setting import Setting


@dataclass(frozen=True, kw_only=True)
class Record:
    """One text. Lists by round begin with the prefill's."""

    task: str
    id: str
    """Identifier of the sample."""
    group: str
    repeat: int
    mode: str
    exit_layer: int
    num_speculations: int
    exit_states: str | None
    policy: str | None
    prompt_tokens: int
    tokens: list[int]
    """The new ones."""
    text: str
    scores: dict[str, float]
    seconds: float
    cpu_seconds: float
    emitted: list[int]
    """Tokens that came out of each round."""
    drafted: list[int]
    accepted: list[int]
    round_seconds: list[float]
    identical: bool | None
    """Whether the tokens are autoregressive decoding's of the same prompt; None where they are drawn."""
    near_tie: bool = False
    """Self-speculation's differ, from a token on of which the full model hardly prefers one to the other."""
    passes: list[float] | None = None
    """eval.measure.timing.PassTimes, of some samples."""
    threads: int | None = None
    """CPU threads, the same for all settings of a sample."""
    peak_memory_mb: float | None = None
    """The most that torch held at a time, on a GPU."""

    @property
    def setting(self) -> Setting:
        """How it was decoded."""
        return Setting(self.mode, self.exit_layer, self.num_speculations, self.exit_states, self.policy)

    @property
    def key(self) -> tuple[str, int]:
        """The pass over the sample that it belongs to."""
        return self.id, self.repeat

    @property
    def seconds_per_token(self) -> float:
        """The prefill included."""
        return self.seconds / len(self.tokens)

    @property
    def decoding_rounds(self) -> Iterator[tuple[int, int]]:
        """(drafted, accepted) of each round after the prefill."""
        return zip(self.drafted[1:], self.accepted[1:], strict=True)

    def as_json(self) -> dict[str, Any]:
        """What a line holds: the fields, and the number of new tokens."""
        return asdict(self) | {"new_tokens": len(self.tokens)}


def record_from_json(value: dict[str, Any]) -> Record:
    """A record from its line; raises TypeError for anything else."""
    return Record(**{key: item for key, item in value.items() if key != "new_tokens"})
