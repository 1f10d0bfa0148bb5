"""The numbers of one setting: what benchmark.json and sweep.json list, and what tables, figures and verdicts show.

docs/evaluation.md describes the keys, which are the names of the fields here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args

from eval.config import Mode
from eval.measure.facts import Facts
from eval.results.bootstrap import Estimate
from eval.setting import Setting


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Time per token, and ratios of it in pairs with autoregressive decoding of the same prompt."""

    tokens_per_second: float
    ms_per_token: float
    mean_ms_per_token: float
    cpu_ms_per_token: float
    speedup: Estimate
    """The median of the pairs."""
    speedup_q25: float
    speedup_q75: float
    speedup_of_means: Estimate
    """The ratio of the mean times per token, which is what the paper reports."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What decoding took on a GPU."""

    peak_memory_mb: float


@dataclass(frozen=True, kw_only=True)
class Drafts:
    """What became of drafted tokens."""

    acceptance_rate: float | None
    """It is None in modes that draft nothing."""
    tokens_per_round: float
    """Mean over the rounds after the prefill."""


@dataclass(frozen=True, kw_only=True)
class Ideals:
    """Limits of the speed-up; None for another checkpoint."""

    head: float
    """Cost of the LM head in units of a block."""
    pass_samples: int
    """Samples on which single passes were timed."""
    ideal_speedup: float | None
    measured_cost_ideal: float | None
    share_of_measured_cost_ideal: float | None


@dataclass(frozen=True, kw_only=True)
class Bandwidth:
    """What autoregressive decoding makes of the memory's bandwidth; medians of the samples with timed passes."""

    weight_mb_per_token: float
    """Weights that are read for a token."""
    bandwidth_gb_per_second: float
    """At which a matrix-vector product in fp32 reads as many bytes, between two of the passes."""
    share_of_bandwidth: float
    """The time of that product over that of a token's pass."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """How the texts compare with autoregressive decoding's; None where tokens are drawn, or another checkpoint's."""

    identical_output: bool | None
    """Whether all texts are identical, or differ at a near-tie."""
    identical_share: float | None
    near_ties: int | None
    distinct_4grams: float
    """Share of the texts' 4-grams that are distinct: a model that loops is easily fast."""


@dataclass(frozen=True, kw_only=True)
class OverBaseline:
    """Speed beside that of a second checkpoint, decoded autoregressively."""

    speedup_over_baseline: Estimate
    speedup_of_means_over_baseline: Estimate


@dataclass(frozen=True, kw_only=True)
class BesideTransformers:
    """Autoregressive decoding beside generate of transformers."""

    transformers_tokens_per_second: float
    speedup_over_transformers: float
    same_as_transformers: float
    """Share of identical texts."""


@dataclass(frozen=True, kw_only=True)
class GroupPart:
    """The samples of one group."""

    group: str
    n_samples: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class LengthPart:
    """The samples whose prompts have about the same number of tokens."""

    prompt_tokens: str
    """`128-255`."""
    n_samples: int
    metrics: Mapping[str, float]
    ms_per_token: float
    speedup: float
    acceptance_rate: float | None


@dataclass(frozen=True, kw_only=True)
class PositionPart:
    """A stretch of the output, over all samples."""

    position: str
    """`16-63`."""
    n_tokens: int
    ms_per_token: float
    speedup: float | None
    acceptance_rate: float | None


Part = GroupPart | LengthPart | PositionPart


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What was decoded."""

    task: str
    n_samples: int
    repeats: int
    seed: int
    prompt_tokens: float
    """Mean length of the prompts."""
    new_tokens: float
    """Mean length of the outputs."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One setting."""

    setting: Setting
    metrics: Mapping[str, Estimate]
    """The task's, by name."""
    speed: Speed
    memory: Memory | None
    drafts: Drafts
    ideals: Ideals
    bandwidth: Bandwidth | None
    output: Output
    over_baseline: OverBaseline | None
    transformers: BesideTransformers | None
    by_group: Sequence[GroupPart]
    by_prompt_length: Sequence[LengthPart]
    by_position: Sequence[PositionPart]
    counts: Counts
    facts: Facts

    @property
    def mode(self) -> str:
        """A Mode, or `baseline`."""
        return self.setting.mode

    def as_json(self) -> dict[str, Any]:
        """What a file holds: the fields of all parts, without the parts that were not measured."""
        row = self.setting._asdict() | flat(self.metrics)
        parts = (self.speed, self.memory, self.drafts, self.ideals, self.bandwidth, self.output)
        for part in (*parts, self.over_baseline, self.transformers):
            row |= {} if part is None else flat_part(part)
        for name in ("by_group", "by_prompt_length", "by_position"):
            row[name] = [flat_part(part) for part in getattr(self, name)]
        return row | flat_part(self.counts) | self.facts.as_json()


def flat_part(part: Any) -> dict[str, Any]:
    """A part's fields by name, estimates as NAME, NAME_low and NAME_high, the items of a mapping in its place."""
    found: dict[str, Any] = {}
    for f in fields(part):
        value = getattr(part, f.name)
        if value is None and Estimate in get_args(f.type):
            found |= dict.fromkeys((f.name, f"{f.name}_low", f"{f.name}_high"))
        else:
            found |= flat(value) if isinstance(value, Mapping) else flat({f.name: value})
    return found


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, each estimate as NAME, NAME_low and NAME_high."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Estimate):
            found |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        else:
            found[name] = value
    return found


def fastest_drafting(rows: Iterable[Row]) -> Row | None:
    """The self-speculative row with the largest speed-up, of equal ones the first; None if there is none."""
    drafting = (row for row in rows if row.mode == Mode.self_speculative)
    return max(drafting, key=lambda row: row.speed.speedup.value, default=None)
