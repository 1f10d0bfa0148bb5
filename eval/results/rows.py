"""From records to one row per setting: quality, speed in pairs with autoregressive decoding, and both ideals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

import numpy as np

from eval.config import Mode
from eval.engine.agreement import distinct_4grams
from eval.measure.facts import Facts
from eval.measure.plan import Measured
from eval.measure.records import Record
from eval.measure.timing import PassTimes
from eval.results import bootstrap
from eval.results.bootstrap import Estimate
from eval.results.breakdown import by_group, by_position, by_prompt_length
from eval.results.ideal import early_exit_ideal, measured_cost_ideal
from eval.results.row import (
    Bandwidth,
    BesideTransformers,
    Counts,
    Drafts,
    Ideals,
    Memory,
    Output,
    OverBaseline,
    Row,
    Speed,
)
from eval.setting import BASELINE, TRANSFORMERS, Setting
from eval.tasks.task import Sample, Task
from models.config import ModelConfig
from models.speculation import head_cost, ideal_speedup

Key = tuple[str, int]
"""Sample and repeat."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What a setting did with a sample, and what autoregressive decoding did with it within the same seconds."""

    record: Record
    autoregressive: Record

    @property
    def speedup(self) -> float:
        """Ratio of the times per token."""
        return self.autoregressive.seconds_per_token / self.record.seconds_per_token


def measured_rows(measured: Measured) -> list[Row]:
    """The rows of a whole measurement."""
    plan = measured.plan
    samples = {sample.id: sample for sample in plan.samples}
    facts = replace(plan.facts, samples_file=measured.file.name)
    return benchmark_rows(measured.records, plan.config.task, samples, plan.checkpoint.stored.size, facts)


def benchmark_rows(
    records: Sequence[Record], task: Task, samples: Mapping[str, Sample], size: ModelConfig, facts: Facts
) -> list[Row]:
    """A row per setting, autoregressive decoding first; `facts` are repeated in each."""
    settings = dict[Setting, dict[Key, Record]]()
    for record in records:
        settings.setdefault(record.setting, {})[record.key] = record
    autoregressive = next(found for setting, found in settings.items() if setting.mode == Mode.autoregressive)
    baseline = next((found for setting, found in settings.items() if setting.mode == BASELINE), None)
    theirs = next((found for setting, found in settings.items() if setting.mode == TRANSFORMERS), None)
    rows = []
    for setting, found in settings.items():
        if setting.mode == TRANSFORMERS:
            continue
        pairs = _pairs(found, autoregressive)
        records, beside = [pair.record for pair in pairs], [pair.autoregressive for pair in pairs]
        is_autoregressive = setting.mode == Mode.autoregressive
        rows.append(
            Row(
                setting=setting,
                metrics=_metrics(task, samples, records),
                speed=_speed(pairs),
                memory=_memory(records),
                drafts=_drafts(records),
                ideals=_ideals(size, setting, pairs, facts.draft_vocab),
                bandwidth=_bandwidth(records) if is_autoregressive else None,
                output=_output(records),
                over_baseline=_over_baseline(_pairs(found, baseline)) if baseline else None,
                transformers=_beside_transformers(autoregressive, theirs) if theirs and is_autoregressive else None,
                by_group=by_group(task, samples, records),
                by_prompt_length=by_prompt_length(task, samples, records, beside),
                by_position=by_position(records, beside),
                counts=_counts(task, samples, records),
                facts=_facts(facts, setting, records),
            )
        )
    return rows


def _pairs(found: Mapping[Key, Record], autoregressive: Mapping[Key, Record]) -> list[Pair]:
    return [Pair(record=record, autoregressive=autoregressive[key]) for key, record in found.items()]


def _facts(facts: Facts, setting: Setting, records: Sequence[Record]) -> Facts:
    """The facts with this setting's checkpoint and threads; several numbers where they were chosen anew in between."""
    if threads := sorted({record.threads for record in records if record.threads is not None}):
        used = threads[0] if len(threads) == 1 else ", ".join(map(str, threads))
        facts = replace(facts, provenance=replace(facts.provenance, threads=used))
    if setting.mode == BASELINE and facts.baseline:
        facts = replace(facts, checkpoint=facts.baseline)
    return facts


def _metrics(task: Task, samples: Mapping[str, Sample], records: Sequence[Record]) -> dict[str, Estimate]:
    """Each metric of the task with its interval; of repeated measurements the first, whose text is the others'."""
    units = task.units([(samples[r.id], r.scores) for r in records if r.repeat == 0])
    return {name: bootstrap.estimate(values, bootstrap.mean) for name, values in units.items()}


def _speed(pairs: Sequence[Pair]) -> Speed:
    ratios, records = [p.speedup for p in pairs], [p.record for p in pairs]
    low, high = bootstrap.quartiles(ratios)
    per_token = median(r.seconds_per_token for r in records)
    return Speed(
        tokens_per_second=1 / per_token,
        ms_per_token=1e3 * per_token,
        mean_ms_per_token=1e3 * fmean(r.seconds_per_token for r in records),
        cpu_ms_per_token=1e3 * median(r.cpu_seconds / len(r.tokens) for r in records),
        speedup=bootstrap.estimate(ratios, bootstrap.median),
        speedup_q25=low,
        speedup_q75=high,
        speedup_of_means=_ratio_of_means(pairs),
    )


def _memory(records: Sequence[Record]) -> Memory | None:
    memory = [r.peak_memory_mb for r in records if r.peak_memory_mb is not None]
    return Memory(peak_memory_mb=max(memory)) if memory else None


def _ratio_of_means(pairs: Sequence[Pair]) -> Estimate:
    times = [(p.autoregressive.seconds_per_token, p.record.seconds_per_token) for p in pairs]
    return bootstrap.estimate(times, bootstrap.ratio_of_means)


def _over_baseline(pairs: Sequence[Pair]) -> OverBaseline:
    """The paper's speed-up: its autoregressive rows are another model's, trained without LayerSkip."""
    return OverBaseline(
        speedup_over_baseline=bootstrap.estimate([p.speedup for p in pairs], bootstrap.median),
        speedup_of_means_over_baseline=_ratio_of_means(pairs),
    )


def _drafts(records: Sequence[Record]) -> Drafts:
    """Acceptance over all drafted tokens, tokens per round over all rounds after the prefill."""
    if records[0].mode not in list(Mode) or not Mode(records[0].mode).drafts:
        return Drafts(acceptance_rate=None, tokens_per_round=1.0)
    rounds = [r for record in records for r in record.decoding_rounds]
    n_drafted, n_accepted = sum(d for d, _ in rounds), sum(a for _, a in rounds)
    return Drafts(
        acceptance_rate=n_accepted / n_drafted if n_drafted else None,
        tokens_per_round=n_accepted / max(1, len(rounds)) + 1,
    )


def _bandwidth(records: Sequence[Record]) -> Bandwidth | None:
    """Of autoregressive decoding; None where no passes were timed."""
    times = [PassTimes(*record.passes) for record in records if record.passes]
    if not any(t.matrix_vector for t in times):
        return None
    return Bandwidth(
        weight_mb_per_token=times[0].weight_bytes / 1e6,
        bandwidth_gb_per_second=median(t.weight_bytes / t.matrix_vector for t in times) / 1e9,
        share_of_bandwidth=median(t.matrix_vector / t.autoregressive_token for t in times),
    )


def _ideals(size: ModelConfig, setting: Setting, pairs: Sequence[Pair], draft_vocab: int | None) -> Ideals:
    """Both limits of the speed-up; the measured one over the samples on which passes were timed."""
    head, draft_head, n_layers = head_cost(size), head_cost(size, draft_vocab), size.n_layers
    rounds = [r for pair in pairs for r in pair.record.decoding_rounds]
    on_passes = [(pair, PassTimes(*pair.record.passes)) for pair in pairs if pair.record.passes]
    match setting.mode if setting.policy is None else setting.policy:
        case Mode.early_exit:
            ideal = (n_layers + head) / (setting.exit_layer + head)
            possible = [early_exit_ideal(times, len(pair.record.tokens)) for pair, times in on_passes]
        case Mode.self_speculative | Mode.draft_model | Mode.prompt_lookup:
            d, n = (fmean(column) for column in zip(*rounds, strict=True)) if rounds else (0.0, 0.0)
            ideal = ideal_speedup(
                n_layers=n_layers, exit_layer=setting.exit_layer, d=d, n=n, head=head, draft_head=draft_head
            )
            if setting.mode == Mode.prompt_lookup:
                ideal = n + 1  # its drafts cost no block
            possible = [
                measured_cost_ideal(times, len(pair.record.tokens), pair.record.drafted[1:])
                for pair, times in on_passes
            ]
        case mode:
            same = 1.0 if mode == Mode.autoregressive else None
            return Ideals(
                head=head,
                pass_samples=len(on_passes),
                ideal_speedup=same,
                measured_cost_ideal=same,
                share_of_measured_cost_ideal=same,
            )
    shares = [pair.speedup / limit for (pair, _), limit in zip(on_passes, possible, strict=True)]
    return Ideals(
        head=head,
        pass_samples=len(on_passes),
        ideal_speedup=ideal,
        measured_cost_ideal=median(possible),
        share_of_measured_cost_ideal=median(shares),
    )


def _output(records: Sequence[Record]) -> Output:
    distinct = distinct_4grams([r.tokens for r in records])
    if any(r.identical is None for r in records):
        return Output(identical_output=None, identical_share=None, near_ties=None, distinct_4grams=distinct)
    return Output(
        identical_output=all(r.identical or r.near_tie for r in records),
        identical_share=fmean(bool(r.identical) for r in records),
        near_ties=sum(r.near_tie for r in records),
        distinct_4grams=distinct,
    )


def _beside_transformers(autoregressive: Mapping[Key, Record], theirs: Mapping[Key, Record]) -> BesideTransformers:
    return BesideTransformers(
        transformers_tokens_per_second=1 / median(r.seconds_per_token for r in theirs.values()),
        speedup_over_transformers=median(
            r.seconds_per_token / autoregressive[key].seconds_per_token for key, r in theirs.items()
        ),
        same_as_transformers=fmean(bool(r.identical) for r in theirs.values()),
    )


def _counts(task: Task, samples: Mapping[str, Sample], records: Sequence[Record]) -> Counts:
    return Counts(
        task=task.name,
        n_samples=len(samples),
        repeats=len(records) // len(samples),
        seed=task.seed,
        prompt_tokens=float(np.mean([r.prompt_tokens for r in records])),
        new_tokens=float(np.mean([len(r.tokens) for r in records])),
    )
