"""A whole run: from its configuration by way of the log to the breakdowns."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch

from conf.progress import progress
from conf.provenance import Provenance
from conf.strict import ConfigError
from data.json_log import JsonLog
from eval.drafts.breakdowns import breakdowns, confusion, pairs, totals
from eval.drafts.classes import Language, language_of
from eval.drafts.config import RejectionsConfig
from eval.drafts.findings import Rejections, RejectionsSetting
from eval.drafts.sample import DraftedSample, drafted_sample, drafted_sample_from_json
from eval.engine.checkpoint import Checkpoint, open_checkpoint
from eval.engine.decoding import Engine
from eval.engine.policy import SelfSpeculative
from eval.engine.threads import Threads, one_token
from eval.machine import device_and_dtype, provenance
from eval.measure.identity import conditions, samples_digest, weights_digest
from eval.measure.result_file import output_of
from eval.measure.samples_file import samples_log, samples_path, why_anew
from eval.policies import measured_drafting
from eval.prompts.text import plain_text
from eval.tasks.task import Sample, Selection


class RejectionsPlan(NamedTuple):
    """What is decoded with what; nothing has been decoded yet."""

    config: RejectionsConfig
    checkpoint: Checkpoint
    policy: SelfSpeculative
    samples: list[Sample]
    device: torch.device
    dtype: torch.dtype
    output: Path
    setting: RejectionsSetting
    selection: Selection
    provenance: Provenance


def plan_rejections(config: RejectionsConfig) -> RejectionsPlan:
    """Read what is to be decoded, and refuse what cannot be. Raises ConfigError, DataError or FormatError."""
    task, (device, dtype) = config.task, device_and_dtype(config.machine)
    checkpoint = open_checkpoint(config.checkpoint)
    policy = _policy(config, checkpoint)
    output = output_of(config, checkpoint.stored, "rejections")
    chosen = task.samples(checkpoint)
    language = config.language
    if language is Language.auto:
        language = language_of(sample.prompt for sample in chosen.samples)
    print(chosen.described(task))
    setting = RejectionsSetting(
        checkpoint=config.checkpoint,
        exit_layer=policy.exit_layer,
        n_layers=checkpoint.stored.size.n_layers,
        num_speculations=policy.num_speculations,
        language=language.value,
        task=task.name,
        n_samples=len(chosen.samples),
        seed=task.seed,
        temperature=task.sampling_of(0).temperature,
    )
    return RejectionsPlan(
        config=config,
        checkpoint=checkpoint,
        policy=policy,
        samples=chosen.samples,
        device=device,
        dtype=dtype,
        output=output,
        setting=setting,
        selection=chosen.selection,
        provenance=provenance(device, dtype, config.machine.threads or "auto", int8=config.machine.int8),
    )


def find_rejections(plan: RejectionsPlan) -> Rejections:
    """Decode what an earlier start of the same settings has not, and sum up. Raises ConfigError or DataError."""
    modules = ("eval.drafts.sample", type(plan.config.task).__module__)
    facts = asdict(plan.setting) | plan.selection.as_json() | asdict(plan.provenance)
    settings = conditions(facts, *modules) | {
        "task": asdict(plan.config.task),
        "samples": samples_digest(plan.samples),
        "weights": weights_digest(plan.checkpoint.stored),
    }
    path = samples_path(plan.output, settings)
    anew = why_anew(path, settings)
    with samples_log(path, settings, drafted_sample_from_json, DraftedSample.as_json, fresh=plan.config.fresh) as log:
        done = {sample.id for sample in log.entries}
        if missing := [(i, sample) for i, sample in enumerate(plan.samples) if sample.id not in done]:
            if anew:
                print(anew)
            _decode(plan, missing, log)
        else:
            print(f"{path}: has all samples from an earlier start; fresh=true decodes them anew")
        by_id = {sample.id: sample for sample in log.entries}
    samples = [by_id[sample.id] for sample in plan.samples]
    return _summed(plan, samples, path.name)


def _summed(plan: RejectionsPlan, samples: list[DraftedSample], samples_file: str) -> Rejections:
    tokenizer = plan.checkpoint.tokenizer
    return Rejections(
        setting=plan.setting,
        selection=plan.selection,
        provenance=plan.provenance,
        new_tokens=sum(len(s.tokens) for s in samples) / len(samples),
        totals=totals(samples),
        breakdowns=breakdowns(samples),
        confusion=confusion(samples),
        pairs=pairs(samples, lambda i: plain_text(tokenizer, i)),
        samples_file=samples_file,
    )


def _policy(config: RejectionsConfig, checkpoint: Checkpoint) -> SelfSpeculative:
    """E and d as they are given, else of the checkpoint's benchmark, else the task's first. Raises ConfigError."""
    task, n_layers = config.task, checkpoint.stored.size.n_layers
    of_the_task = SelfSpeculative(task.exit_layers(n_layers)[0], task.num_speculations()[0])
    default = measured_drafting(checkpoint) or of_the_task
    exit_layer = default.exit_layer if config.exit_layer is None else config.exit_layer
    d = default.num_speculations if config.num_speculations is None else config.num_speculations
    if not 1 <= exit_layer < n_layers:
        raise ConfigError(f"exit_layer={exit_layer}: must lie in 1..{n_layers - 1} to leave layers to verify")
    if task.limit < 3:  # the first comes from the prefill, the last from the full model
        raise ConfigError(f"task.max_new_tokens={task.max_new_tokens}: must be at least 3, or nothing is drafted")
    if config.num_speculations is not None and d >= task.limit:
        raise ConfigError(f"num_speculations={d}: must be below task.max_new_tokens={task.max_new_tokens}")
    return SelfSpeculative(exit_layer, d)


def _decode(plan: RejectionsPlan, missing: Sequence[tuple[int, Sample]], log: JsonLog[DraftedSample]) -> None:
    task, tokenizer = plan.config.task, plan.checkpoint.tokenizer
    max_len = max(len(s.tokens) for s in plan.samples) + task.limit
    engine = Engine(plan.checkpoint.model(plan.dtype, plan.device, **plan.config.machine.model_options), max_len)
    threads = Threads(plan.config.machine.threads, plan.device, one_token(engine.model))
    stop, language = task.stop(tokenizer), Language(plan.setting.language)
    with progress(f"rejections {task.name}", unit="sample", total=len(plan.samples), initial=len(log.entries)) as bar:
        for i, sample in missing:
            threads.refresh()
            try:
                drafted = drafted_sample(
                    engine,
                    tokenizer,
                    sample.tokens,
                    plan.policy,
                    stop,
                    task.sampling_of(i),
                    language=language,
                    sample_id=sample.id,
                    group=sample.group,
                )
            except FloatingPointError as error:
                raise ConfigError(
                    f"machine.dtype={plan.config.machine.dtype}: {error}; take a wider one, or see whether the weights"
                    " are whole"
                ) from None
            log.add([drafted])
            bar.update()
