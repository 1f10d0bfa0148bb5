"""From records to one row per setting: quality, speed in pairs with plain decoding, and both ideals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, quantiles
from typing import Any

import numpy as np

from eval.config import Mode
from eval.engine.agreement import distinct_4grams
from eval.measure.plan import Measured
from eval.measure.records import BASELINE, TRANSFORMERS, Record, Setting
from eval.measure.timing import PassTimes
from eval.results import bootstrap
from eval.results.breakdown import by_group, by_position, by_prompt_length
from eval.results.ideal import early_exit_ideal, ideal_speedup, measured_cost_ideal
from eval.tasks.task import Sample, Task
from models.config import ModelConfig

Row = dict[str, Any]
"""What benchmark.json lists; its keys are described in docs/evaluation.md."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What a setting did with a sample, and what plain decoding did with it within the same seconds."""

    own: Record
    plain: Record

    @property
    def speedup(self) -> float:
        """Ratio of the times per token."""
        return self.plain.seconds_per_token / self.own.seconds_per_token


def measured_rows(measured: Measured) -> list[Row]:
    """The rows of a whole measurement, each with what its plan states."""
    plan = measured.plan
    samples = {sample.id: sample for sample in plan.samples}
    stated = plan.stated | {"samples_file": measured.file.name}
    return rows_of(measured.records, plan.config.task, samples, plan.checkpoint.stored.size, stated)


def rows_of(
    records: Sequence[Record], task: Task, samples: Mapping[str, Sample], size: ModelConfig, stated: Row
) -> list[Row]:
    """A row per setting, plain decoding first; `stated` (machine, commit, checkpoint) is repeated in each."""
    settings = dict[Setting, dict[tuple[str, int], Record]]()
    for record in records:
        settings.setdefault(record.setting, {})[record.key] = record
    plain = next(found for setting, found in settings.items() if setting.mode == Mode.autoregressive)
    baseline = next((found for setting, found in settings.items() if setting.mode == BASELINE), None)
    rows = []
    for setting, found in settings.items():
        if setting.mode == TRANSFORMERS:
            continue
        pairs = [Pair(own=record, plain=plain[key]) for key, record in found.items()]
        own = [pair.own for pair in pairs]
        row = setting._asdict() | quality(task, samples, own) | _speed(pairs) | _rounds(own)
        row |= ideals(size, setting, pairs) | _agreement(own)
        if baseline:
            row |= _over_baseline([Pair(own=record, plain=baseline[key]) for key, record in found.items()])
        if setting.mode == Mode.autoregressive:
            row |= _transformers(plain, settings)
        row |= {
            "by_group": by_group(task, samples, own),
            "by_prompt_length": by_prompt_length(task, samples, own, [p.plain for p in pairs]),
            "by_position": by_position(own, [p.plain for p in pairs]),
        }
        row |= _counts(task, samples, own) | stated | _threads(own)
        rows.append(row | ({"checkpoint": stated["baseline"]} if setting.mode == BASELINE else {}))
    return rows


def _threads(own: Sequence[Record]) -> Row:
    """The number of CPU threads; several where it has been chosen anew in between."""
    found = sorted({record.threads for record in own if record.threads is not None})
    return {"threads": found[0] if len(found) == 1 else ", ".join(map(str, found))} if found else {}


def quality(task: Task, samples: Mapping[str, Sample], own: Sequence[Record]) -> Row:
    """Each metric of the task with its interval; of repeated measurements the first, whose text is the others'."""
    units = task.units([(samples[r.id], r.scores) for r in own if r.repeat == 0])
    row: Row = {}
    for name, values in units.items():
        row |= _named(name, bootstrap.estimate(values, bootstrap.mean))
    return row


def _named(name: str, found: bootstrap.Estimate) -> Row:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _speed(pairs: Sequence[Pair]) -> Row:
    ratios, own = [p.speedup for p in pairs], [p.own for p in pairs]
    low, _, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    per_token = median(r.seconds_per_token for r in own)
    memory = [r.peak_memory_mb for r in own if r.peak_memory_mb is not None]
    return (
        {
            "tokens_per_second": 1 / per_token,
            "ms_per_token": 1e3 * per_token,
            "mean_ms_per_token": 1e3 * fmean(r.seconds_per_token for r in own),
            "cpu_ms_per_token": 1e3 * median(r.cpu_seconds / len(r.tokens) for r in own),
        }
        | _named("speedup", bootstrap.estimate(ratios, bootstrap.median))
        | {"speedup_q25": low, "speedup_q75": high}
        | _named("speedup_of_means", _ratio_of_means(pairs))
        | ({"peak_memory_mb": max(memory)} if memory else {})
    )


def _ratio_of_means(pairs: Sequence[Pair]) -> bootstrap.Estimate:
    times = [(p.plain.seconds_per_token, p.own.seconds_per_token) for p in pairs]
    return bootstrap.estimate(times, bootstrap.ratio_of_means)


def _over_baseline(pairs: Sequence[Pair]) -> Row:
    """The paper's speed-up: its autoregressive rows are another model's, trained without LayerSkip."""
    ratios = bootstrap.estimate([p.speedup for p in pairs], bootstrap.median)
    return _named("speedup_over_baseline", ratios) | _named("speedup_of_means_over_baseline", _ratio_of_means(pairs))


def _rounds(own: Sequence[Record]) -> Row:
    """Acceptance over all drafted tokens, tokens per round over all rounds after the prefill."""
    if own[0].mode != Mode.self_speculative:
        return {"acceptance_rate": None, "tokens_per_round": 1.0}
    rounds = [r for record in own for r in record.decoding_rounds]
    n_drafted, n_accepted = sum(d for d, _ in rounds), sum(a for _, a in rounds)
    return {
        "acceptance_rate": n_accepted / n_drafted if n_drafted else None,
        "tokens_per_round": n_accepted / max(1, len(rounds)) + 1,
    }


def ideals(size: ModelConfig, setting: Setting, pairs: Sequence[Pair]) -> Row:
    """Both limits of the speed-up; the measured one over the samples on which passes were timed."""
    head, n_layers = head_cost(size), size.n_layers
    rounds = [r for pair in pairs for r in pair.own.decoding_rounds]
    on_passes = [(pair, PassTimes(*pair.own.passes)) for pair in pairs if pair.own.passes]
    row: Row = {"head": head, "pass_samples": len(on_passes)}
    match setting.mode:
        case Mode.autoregressive:
            return row | {"ideal_speedup": 1.0, "measured_cost_ideal": 1.0, "share_of_measured_cost_ideal": 1.0}
        case Mode.early_exit:
            ideal = (n_layers + head) / (setting.exit_layer + head)
            possible = [early_exit_ideal(times, len(pair.own.tokens)) for pair, times in on_passes]
        case Mode.self_speculative:
            d, n = (fmean(column) for column in zip(*rounds, strict=True)) if rounds else (0.0, 0.0)
            ideal = ideal_speedup(n_layers=n_layers, exit_layer=setting.exit_layer, d=d, n=n, head=head)
            possible = [
                measured_cost_ideal(times, len(pair.own.tokens), pair.own.drafted[1:]) for pair, times in on_passes
            ]
        case _:
            return row | dict.fromkeys(("ideal_speedup", "measured_cost_ideal", "share_of_measured_cost_ideal"))
    shares = [pair.speedup / limit for (pair, _), limit in zip(on_passes, possible, strict=True)]
    return row | {
        "ideal_speedup": ideal,
        "measured_cost_ideal": median(possible),
        "share_of_measured_cost_ideal": median(shares),
    }


def head_cost(size: ModelConfig) -> float:
    """h, the cost of the LM head in units of a block, by multiplications per token."""
    attention = size.head_dim * (2 * size.n_heads + 2 * size.kv_heads)
    return size.vocab_size / (attention + 3 * size.ffn_dim)


def _agreement(own: Sequence[Record]) -> Row:
    """How the texts compare with plain decoding's; null where tokens are drawn, or another model's."""
    row: Row = {"distinct_4grams": distinct_4grams([r.tokens for r in own])}
    if any(r.identical is None for r in own):
        return {"identical_output": None, "identical_share": None, "near_ties": None} | row
    return {
        "identical_output": all(r.identical or r.near_tie for r in own),
        "identical_share": fmean(bool(r.identical) for r in own),
        "near_ties": sum(r.near_tie for r in own),
    } | row


def _transformers(
    plain: Mapping[tuple[str, int], Record], settings: Mapping[Setting, Mapping[tuple[str, int], Record]]
) -> Row:
    theirs = next((found for setting, found in settings.items() if setting.mode == TRANSFORMERS), None)
    if theirs is None:
        return {}
    return {
        "transformers_tokens_per_second": 1 / median(r.seconds_per_token for r in theirs.values()),
        "speedup_over_transformers": median(
            r.seconds_per_token / plain[key].seconds_per_token for key, r in theirs.items()
        ),
        "same_as_transformers": fmean(bool(r.identical) for r in theirs.values()),
    }


def _counts(task: Task, samples: Mapping[str, Sample], own: Sequence[Record]) -> Row:
    return {
        "task": task.name,
        "n_samples": len(samples),
        "repeats": len(own) // len(samples),
        "seed": task.seed,
        "prompt_tokens": float(np.mean([r.prompt_tokens for r in own])),
        "new_tokens": float(np.mean([len(r.tokens) for r in own])),
    }
