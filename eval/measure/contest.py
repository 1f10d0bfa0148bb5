"""Every setting on every sample, in turn, so that a machine that changes its speed changes it for all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from conf.progress import progress
from data.tokenizers.tokenizer import Tokenizer
from eval.config import Mode
from eval.engine.agreement import first_difference, near_tie_after
from eval.engine.decoding import Engine
from eval.engine.policy import Autoregressive, Policy, Steady, most_drafts
from eval.engine.rows import Request
from eval.engine.stopping import StopRule
from eval.engine.threads import Threads
from eval.measure.ledger import Ledger
from eval.measure.records import Record
from eval.measure.timing import Timed, pass_times, timed_together
from eval.prompts.text import continuation
from eval.setting import BASELINE, TRANSFORMERS, Setting
from eval.tasks.task import Sample, Task

Run = Callable[[Sequence[Request]], list[Timed]]
"""Decodes prompts, as many at a time as it does."""
WARM_UP_TOKENS = 32
BATCHES = 2
"""Batches that a setting decodes in turn, so that prompts take the place of texts that have ended."""


@dataclass(kw_only=True)
class Contest:
    """What decodes the samples of a task."""

    task: Task
    tokenizer: Tokenizer
    engine: Engine
    policies: list[Policy]
    others: dict[Setting, Run] = field(default_factory=dict)
    """Baseline and transformers."""
    threads: Threads | None = None
    """Chosen anew between two samples; None: as they are."""

    def runs(self) -> dict[Setting, Run]:
        """All that takes part, by its setting; autoregressive decoding first."""
        n_layers = self.engine.model.size.n_layers
        ours = {Setting.of(policy, n_layers): engine_run(self.engine, policy) for policy in self.policies}
        return ours | self.others


def engine_run(engine: Engine, policy: Policy) -> Run:
    """An engine that decodes with one policy."""
    return lambda requests: timed_together(engine, requests, policy)


def at_a_time(batch_size: int) -> int:
    """How many prompts a setting gets before it is another's turn."""
    return batch_size if batch_size == 1 else BATCHES * batch_size


class Turn(NamedTuple):
    """One pass over one sample."""

    number: int
    repeat: int
    which: int
    """Index of the sample."""
    times_passes: bool


def turns(samples: Sequence[Sample], ledger: Ledger, *, repeats: int, pass_samples: int) -> list[Turn]:
    """What the ledger lacks. On `pass_samples` of the samples, evenly spaced, single passes are timed."""
    timed_indices = {k * len(samples) // pass_samples for k in range(pass_samples)}
    schedule = [(repeat, i) for repeat in range(repeats) for i in range(len(samples))]
    return [
        Turn(number, repeat, i, i in timed_indices)
        for number, (repeat, i) in enumerate(schedule)
        if (samples[i].id, repeat) not in ledger.done
    ]


def decode_all(contest: Contest, samples: Sequence[Sample], missing: Sequence[Turn], ledger: Ledger) -> None:
    """Decode what is missing; what runs first changes from sample to sample.

    Each setting runs once before, uncounted.
    """
    warm_up = StopRule(max_new_tokens=min(WARM_UP_TOKENS, contest.task.limit))
    for run in contest.runs().values():
        run([Request(samples[missing[0].which].tokens, warm_up)] * contest.engine.batch_size)
    n_done, n_together = len(ledger.done), at_a_time(contest.engine.batch_size)
    with progress(contest.task.name, unit="sample", total=n_done + len(missing), initial=n_done) as bar:
        for start in range(0, len(missing), n_together):
            if contest.threads:
                contest.threads.refresh()
            together = missing[start : start + n_together]
            texts = _texts(contest, samples, together)
            for i, turn in enumerate(together):
                sample, its = samples[turn.which], {setting: (found[i], m) for setting, (found, m) in texts.items()}
                records = _records(contest, sample, turn.repeat, its)
                ledger.add(_with_passes(contest, sample, records) if turn.times_passes else records)
            bar.update(len(together))


def _texts(
    contest: Contest, samples: Sequence[Sample], together: Sequence[Turn]
) -> dict[Setting, tuple[list[Timed], float | None]]:
    """What each setting makes of some samples, and the memory it takes, in the order of the settings."""
    stop = contest.task.stop(contest.tokenizer)
    requests = [Request(samples[t.which].tokens, stop, contest.task.sampling_of(t.which)) for t in together]
    device, runs = contest.engine.model.device, contest.runs()
    out: dict[Setting, tuple[list[Timed], float | None]] = {}
    for setting in _turned(list(runs), together[0].number // len(together)):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        texts = runs[setting](requests)
        memory = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None
        out[setting] = texts, memory
    return {setting: out[setting] for setting in runs}


def _records(
    contest: Contest, sample: Sample, repeat: int, texts: dict[Setting, tuple[Timed, float | None]]
) -> list[Record]:
    autoregressive = texts[Setting.of(Autoregressive(), contest.engine.model.size.n_layers)][0].tokens
    greedy = contest.task.sampling_of(0).temperature == 0
    records = []
    for setting, (run, memory) in texts.items():
        text = continuation(contest.tokenizer, sample.tokens, run.tokens)
        at = first_difference(run.tokens, autoregressive)
        compared = greedy and setting.mode != BASELINE
        # An early exit is not expected to write the same, and to find out whether it was close costs a prefill.
        asked = compared and setting.mode in list(Mode) and Mode(setting.mode).drafts
        near_tie = False
        if asked and at is not None and at < min(len(run.tokens), len(autoregressive)):
            near_tie = near_tie_after(
                contest.engine.model, sample.tokens + autoregressive[:at], run.tokens[at], autoregressive[at]
            )
        records.append(
            Record(
                task=contest.task.name,
                id=sample.id,
                group=sample.group,
                repeat=repeat,
                **setting._asdict(),
                prompt_tokens=len(sample.tokens),
                tokens=run.tokens,
                text=text,
                scores=contest.task.all_scores(sample, text) if setting.mode != TRANSFORMERS else {},
                seconds=run.seconds,
                cpu_seconds=run.cpu_seconds,
                emitted=[len(r.tokens) for r in run.rounds],
                drafted=[r.n_drafted for r in run.rounds],
                accepted=[r.n_accepted for r in run.rounds],
                round_seconds=[round(s, 7) for s in run.round_seconds],
                identical=at is None if compared else None,
                near_tie=near_tie,
                threads=torch.get_num_threads(),
                peak_memory_mb=memory,
            )
        )
    return records


def _with_passes(contest: Contest, sample: Sample, records: list[Record]) -> list[Record]:
    """The records with the time of each kind of pass, in the middle of the text or where the widest still fits."""
    engine, policies = contest.engine, [p for p in contest.policies if isinstance(p, Steady)]
    widest = max(most_drafts(p) + 1 for p in policies)
    end = len(sample.tokens) + len(records[0].tokens)
    middle = min(end - len(records[0].tokens) // 2, engine.cache.max_len - widest)
    n_layers = engine.model.size.n_layers
    prefill_of = {record.setting: record.round_seconds[0] for record in records if record.round_seconds}
    prefills = {p: prefill_of[Setting.of(p, n_layers)] for p in policies}
    found = pass_times(engine, sample.tokens[-1], policies, prefills, middle)
    times = {Setting.of(p, n_layers): t for p, t in found.items()}
    return [replace(r, passes=list(times[r.setting])) if r.setting in times else r for r in records]


def _turned(settings: list[Setting], number: int) -> list[Setting]:
    """Another first one each time, and backwards every other time."""
    at = (number * 7) % len(settings)
    order = settings[at:] + settings[:at]
    return order[::-1] if number % 2 else order
