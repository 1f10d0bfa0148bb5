"""What every task is: samples for a model to continue, when a text ends, and scores of it.

A task is its own configuration: `task=cnn_dm task.n_samples=100` makes a `CnnDm(n_samples=100)`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from conf.checks import at_least
from conf.plugins import load_function
from conf.strict import ConfigError
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import StopRule
from eval.tasks.references import with_cut_references

if TYPE_CHECKING:
    from data.tokenizers.tokenizer import Tokenizer
    from eval.engine.checkpoint import Checkpoint

# What a user writes before the keys of a task.
SECTION = "task."
NO_LIMIT = 1 << 30
"""New tokens, as long as nothing says how many."""
METRICS, METRIC_PARAMETERS = "task.metrics", ("text", "reference")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A prompt, and what is known of its continuation."""

    id: str
    """Different for each sample of a task, and the same wherever the data lies."""
    prompt: str
    tokens: list[int]
    """The prompt as the model reads it."""
    reference: str | None = None
    """What a good continuation would be."""
    group: str = ""
    """Scores are also given for each group: TOPv2's domain."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """More of the data set's record, where the score needs it."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """How the samples of a measurement were selected. Result files have the fields that are not None."""

    source: str | None = None
    """Where the samples come from."""
    n_available: int | None = None
    """Samples that there are."""
    n_truncated: int | None = None
    """Prompts that were cut to fit into the context."""
    n_too_short: int | None = None
    """Records that were left out because their text is too short."""
    shots: list[dict[str, str]] | None = None
    """The examples before each prompt: `id`, `at` (file and line) and how each `begins`."""
    n_too_long: int | None = None
    """Prompts that were left out because they do not fit into the context."""
    n_cut_references: int | None = None
    """References that are longer than task.max_new_tokens."""
    longest_reference: int | None = None
    """Tokens of the longest of them, with the end of text."""
    best_possible: dict[str, float] | None = None
    """What a model that always writes the reference would score, cut to task.max_new_tokens."""
    task_file: str | None = None
    """Digest of the file that defines a task of the user's own."""

    def as_json(self) -> dict[str, Any]:
        """What result files hold."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Chosen(NamedTuple):
    """The samples of a measurement, and how they were selected."""

    samples: list[Sample]
    selection: Selection

    def described(self, task: "Task") -> str:
        """What was chosen, and how, for people."""
        n = len(self.samples)
        selection = self.selection
        available = n if selection.n_available is None else selection.n_available
        how = (
            f" of {available:,}, {f'drawn with seed {task.seed}' if task.draw else 'the first'}"
            if n < available
            else ""
        )
        lines = [f"{task.name}: {n:,} samples{how} ({selection.source})"]
        lines += [f"shot {shot['id']} ({shot['at']}): {shot['begins']!r}..." for shot in selection.shots or []]
        if selection.n_truncated:
            lines.append(f"{selection.n_truncated:,} prompts were cut to fit into the context")
        if selection.n_too_long:
            lines.append(f"{selection.n_too_long:,} prompts that do not fit into the context were left out")
        if selection.n_too_short:
            lines.append(f"{selection.n_too_short:,} articles of at most 100 words were left out")
        if selection.best_possible:
            scores = ", ".join(f"{name} {value:.3f}" for name, value in selection.best_possible.items())
            lines.append(
                f"warning: task.max_new_tokens={task.max_new_tokens} is less than {selection.n_cut_references:,} of the"
                f" references need (the longest {selection.longest_reference}); a model that always writes the"
                f" reference scores {scores}; null takes as many as the longest needs"
            )
        groups = {sample.group for sample in self.samples}
        if n < available and not task.draw and len(groups) == 1 and "" not in groups:
            lines.append(f"warning: the first samples are all of {groups.pop()}; task.draw=true draws from all groups")
        return "\n".join(lines)


@dataclass(kw_only=True)
class Task:
    """What all tasks have. Raises ValueError for impossible values."""

    EXIT_SHARES: ClassVar[tuple[float, ...]] = (0.25,)
    """The exits that are measured by default, as shares of the layers."""
    DRAFTS: ClassVar[tuple[int, ...]] = (6,)
    """Tokens drafted per round by default."""
    ASKS: ClassVar[bool] = True
    """Whether prompts are whole texts, which can be a turn of a chat."""
    BESIDE_TRANSFORMERS: ClassVar[bool] = False
    """Whether `generate` of transformers is timed beside the engine by default."""
    TABLE_METRICS: ClassVar[tuple[str, ...]] = ()
    """The metrics that a table has room for."""
    WHOLE_ANSWERS: ClassVar[bool] = False
    """Whether an answer that is cut off is worth less than the reference: the first table metric says how much."""

    name: str = ""
    """Name of the task."""
    n_samples: int | None = None
    """How many samples; null: all."""
    draw: bool = True
    """Draw the samples by the seed; false: the first ones."""
    seed: int = 42
    """Seed for the choice of samples and shots."""
    max_new_tokens: int | None = 512
    """At most so many tokens are generated; null: as many as the longest reference of the samples has, and an eighth
    more."""
    ignore_eos: bool = False
    """Go on after the end-of-text token."""
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    """How tokens are chosen. Each sample draws by a seed of its own, made from task.seed and this section's."""
    skip_too_long: bool = False
    """Leave out prompts that do not fit into the context with `max_new_tokens`; the selection counts them. false:
    stop."""

    metrics: list[str] = field(default_factory=list)
    """Scores of your own: my_package.mine:name, each a function (text, reference) that returns a number, or None where
    it has nothing to say; the reference is None where a sample has none."""

    def __post_init__(self) -> None:
        at_least(1, self, "n_samples", "max_new_tokens", section=SECTION)
        for path in self.metrics:
            load_function(path, METRICS, METRIC_PARAMETERS)

    @property
    def limit(self) -> int:
        """`max_new_tokens`, which `samples` fills in where it is null; before that a number that nothing reaches."""
        return NO_LIMIT if self.max_new_tokens is None else self.max_new_tokens

    @property
    def table_metrics(self) -> tuple[str, ...]:
        """The metrics that a table has room for: the task's, and all of the user's own."""
        return (*self.TABLE_METRICS, *(path.partition(":")[2] for path in self.metrics))

    def samples(self, checkpoint: "Checkpoint") -> Chosen:
        """What to decode, each prompt encoded as this model reads it and short enough for its context.

        Fills in a `max_new_tokens` that is null (eval/tasks/references.py). Raises ConfigError or DataError.
        """
        raise NotImplementedError

    def score(self, sample: Sample, text: str) -> dict[str, float]:
        """Scores of a continuation, by name; larger or smaller is better as the task says."""
        del sample, text
        return {}

    def all_scores(self, sample: Sample, text: str) -> dict[str, float]:
        """The task's scores of a continuation, and the user's own. Raises ConfigError for one that is no number."""
        scores = dict(self.score(sample, text))
        for path in self.metrics:
            value = load_function(path, METRICS, METRIC_PARAMETERS)(text=text, reference=sample.reference)
            if value is None:
                continue
            if not isinstance(value, int | float):
                raise ConfigError(f"{METRICS}: {path} gave {value!r} for sample {sample.id}; must be a number or None")
            scores[path.partition(":")[2]] = float(value)
        return scores

    def units(self, scored: Sequence[tuple[Sample, Mapping[str, float]]]) -> dict[str, list[float]]:
        """Metric -> a value for each independent unit, whose mean is the metric and which a bootstrap draws from.

        A unit is a sample, unless a task says otherwise.
        """
        names = dict.fromkeys(name for _, scores in scored for name in scores)
        return {name: [scores[name] for _, scores in scored if name in scores] for name in names}

    def stop(self, tokenizer: "Tokenizer") -> StopRule:
        """When a text ends."""
        eos = frozenset() if self.ignore_eos else frozenset({tokenizer.eos_id})
        return StopRule(max_new_tokens=self.limit, eos_ids=eos)

    def sampling_of(self, index: int) -> SamplingOptions:
        """How the tokens of the sample with this index are chosen: by a seed of its own."""
        return replace(self.sampling, seed=1_000_003 * (self.seed + self.sampling.seed) + index)

    def exit_layers(self, n_layers: int) -> list[int]:
        """The exits that are measured by default: E in 1..L-1."""
        return sorted({min(max(1, round(share * n_layers)), max(1, n_layers - 1)) for share in self.EXIT_SHARES})

    def num_speculations(self) -> list[int]:
        """The numbers of drafts that are measured by default, each shorter than a text."""
        return sorted({min(d, max(1, self.limit - 1)) for d in self.DRAFTS})


def chosen_indices(n_available: int, task: Task) -> list[int]:
    """Which samples, in the order of the data: all, the first, or drawn by the seed without repetition."""
    n = n_available if task.n_samples is None else task.n_samples
    if n > n_available:
        raise ConfigError(f"task.n_samples={n}: there are {n_available:,} samples only; null takes all")
    if not task.draw or n == n_available:
        return list(range(n))
    return sorted(np.random.default_rng(task.seed).choice(n_available, n, replace=False).tolist())


def fitting(
    samples: Sequence[Sample], task: Task, checkpoint: "Checkpoint", remedy: str, selection: Selection
) -> Chosen:
    """The samples whose prompts fit into the context together with their new tokens.

    The selection says what the limit of new tokens costs, where a task asks for whole answers. Raises ConfigError when
    a prompt does not fit, unless `task.skip_too_long` leaves such samples out.
    """
    context, lengths = checkpoint.stored.size.max_seq_len, [len(s.tokens) for s in samples]
    room = context - task.limit
    too_long = [n for n in lengths if n > room]
    if too_long and (not task.skip_too_long or len(too_long) == len(samples)):
        leave_out = "" if task.skip_too_long else "; task.skip_too_long=true leaves them out"
        raise ConfigError(
            f"task.max_new_tokens={task.max_new_tokens}: with so many new tokens {len(too_long)} of {len(lengths)}"
            f" prompts do not fit into the context's {context:,} (the longest has {max(too_long):,} tokens);"
            f" {remedy}{leave_out}"
        )
    kept = [sample for sample, n in zip(samples, lengths, strict=True) if n <= room]
    if task.WHOLE_ANSWERS:
        selection = with_cut_references(selection, kept, task, checkpoint.tokenizer)
    return Chosen(kept, replace(selection, n_too_long=len(too_long) or None))


def shortened(sample: Sample, n_units: int, cut: Callable[[int], Sample], room: int) -> Sample:
    """The sample, or the longest of its cuts to 1..`n_units` - 1 units of text whose prompt fits; else as it was."""
    if len(sample.tokens) <= room:
        return sample
    fits, too_long, found = 0, n_units, sample
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        shorter = cut(middle)
        if len(shorter.tokens) <= room:
            fits, found = middle, shorter
        else:
            too_long = middle
    return found
