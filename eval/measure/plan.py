"""A whole measurement: from its configuration by way of the ledger to records."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from conf.plugins import digest
from conf.strict import ConfigError
from eval.engine.chat import with_chat
from eval.engine.checkpoint import Checkpoint, open_checkpoint
from eval.engine.decoding import Engine
from eval.engine.policy import Autoregressive, Policy, SelfSpeculative
from eval.engine.threads import Threads, one_token
from eval.machine import batch_size_of, device_and_dtype, provenance
from eval.measure.config import BenchmarkConfig
from eval.measure.contest import Contest, decode_all, engine_run, turns
from eval.measure.facts import Facts
from eval.measure.identity import check_same_reading, conditions, samples_digest, weights_digest
from eval.measure.ledger import Ledger
from eval.measure.records import Record
from eval.measure.result_file import output_of
from eval.measure.samples_file import samples_path, why_anew
from eval.measure.transformers_run import Transformers, version
from eval.policies import memory_of, policies
from eval.setting import BASELINE, TRANSFORMERS, Setting
from eval.tasks.task import Sample


class Plan(NamedTuple):
    """What is measured on what; nothing has been decoded yet."""

    config: BenchmarkConfig
    checkpoint: Checkpoint
    baseline: Checkpoint | None
    policies: list[Policy]
    samples: list[Sample]
    device: torch.device
    dtype: torch.dtype
    transformers: bool
    output: Path
    facts: Facts

    @property
    def expected(self) -> list[Setting]:
        """All that decodes each sample."""
        n_layers = self.checkpoint.stored.size.n_layers
        expected = [Setting.of(policy, n_layers) for policy in self.policies]
        expected += [Setting(BASELINE, self.baseline.stored.size.n_layers)] if self.baseline else []
        return expected + ([Setting(TRANSFORMERS, n_layers)] if self.transformers else [])

    @property
    def settings(self) -> dict[str, Any]:
        """All that the numbers depend on."""
        return conditions(self.facts.as_json(), "eval.measure.contest", type(self.config.task).__module__) | {
            "task": asdict(self.config.task),
            "samples": samples_digest(self.samples),
            "settings": self.expected,
            "weights": [weights_digest(c.stored) for c in (self.checkpoint, self.baseline) if c],
            "repeats": self.config.repeats,
            "pass_samples": self.config.pass_samples,
        }


class Measured(NamedTuple):
    """What has been measured."""

    plan: Plan
    records: list[Record]
    file: Path
    """That holds them, a line each."""


def plan_of(config: BenchmarkConfig, checkpoint: Checkpoint | None = None) -> Plan:
    """Read what is to be measured, and refuse what cannot be. Raises ConfigError, DataError or FormatError.

    `checkpoint` is the one that the configuration names, where it has been opened before.
    """
    task, (device, dtype) = config.task, device_and_dtype(config.machine)
    checkpoint = checkpoint or open_checkpoint(config.checkpoint)
    if config.chat:
        if not task.ASKS:
            raise ConfigError(f"chat=true: task={task.name} continues pieces of a text, no turns; choose another task")
        checkpoint = with_chat(checkpoint)
    n_layers = checkpoint.stored.size.n_layers
    compared = policies(
        n_layers,
        config.exit_layers or task.exit_layers(n_layers),
        config.num_speculations or task.num_speculations(),
        modes=config.modes,
        exit_states=config.exit_states,
        drafted_by=config.policies,
        dynamic_exits=config.exit_layers,
    )
    sampling = task.sampling_of(0)
    transformers = task.BESIDE_TRANSFORMERS and sampling.plain if config.transformers is None else config.transformers
    if transformers and not sampling.plain:
        raise ConfigError(f"transformers=true: decodes greedily, but this task with {sampling}; leave it out")
    output = output_of(config, checkpoint.stored, "benchmark")
    chosen = task.samples(checkpoint)
    print(chosen.described(task))
    baseline = _baseline(config, checkpoint, chosen.samples)
    n_positions = _positions(config, chosen.samples)
    facts = Facts(
        checkpoint=config.checkpoint,
        baseline=config.baseline,
        chat=config.chat,
        sampling=str(sampling) or None,
        metrics={path: digest(path) for path in task.metrics},
        selection=chosen.selection,
        provenance=provenance(device, dtype, config.machine.threads or "auto", int8=config.machine.int8),
        transformers=version() if transformers else None,
        draft_vocab=config.machine.draft_vocab,
        compiled=device.type == "cuda" if config.compile is None else config.compile,
        batch_size=batch_size_of(config.batch_size, checkpoint.stored.size, n_positions, dtype, device),
    )
    return Plan(config, checkpoint, baseline, compared, chosen.samples, device, dtype, transformers, output, facts)


def carry_out(plan: Plan) -> Measured:
    """Decode what an earlier start of the same settings has not."""
    config, ledger_file = plan.config, samples_path(plan.output, plan.settings)
    anew = why_anew(ledger_file, plan.settings)
    with Ledger(ledger_file, plan.settings, plan.expected, fresh=config.fresh) as ledger:
        missing = turns(plan.samples, ledger, repeats=config.repeats, pass_samples=config.pass_samples)
        if missing:
            if anew:
                print(anew)
            decode_all(_contest(plan), plan.samples, missing, ledger)
        else:
            print(f"{ledger_file}: has all samples from an earlier start; fresh=true measures them anew")
    return Measured(plan, list(ledger.entries), ledger_file)


def _contest(plan: Plan) -> Contest:
    max_len, batch_size = _positions(plan.config, plan.samples), plan.facts.batch_size
    drafting = [policy for policy in plan.policies if isinstance(policy, SelfSpeculative)]
    largest = max(drafting, key=lambda p: (p.exit_layer, p.num_speculations), default=plan.policies[0])
    memory = memory_of(largest, plan.checkpoint.stored.size, max_len, plan.dtype, batch_size)
    print(memory, file=sys.stderr)
    contest = Contest(
        task=plan.config.task,
        tokenizer=plan.checkpoint.tokenizer,
        engine=engine_of(plan, plan.checkpoint),
        policies=plan.policies,
    )
    contest.threads = Threads(plan.config.machine.threads, plan.device, one_token(contest.engine.model))
    if plan.baseline:
        engine = engine_of(plan, plan.baseline)
        contest.others[Setting(BASELINE, engine.model.size.n_layers)] = engine_run(engine, Autoregressive())
    if plan.transformers:
        reference = Transformers(plan.checkpoint, plan.dtype, plan.device, plan.facts.batch_size)
        contest.others[Setting(TRANSFORMERS, contest.engine.model.size.n_layers)] = reference.timed
    return contest


def engine_of(plan: Plan, checkpoint: Checkpoint, spare: int = 0) -> Engine:
    """What writes the plan's texts, with room for `spare` positions more where the context has them."""
    model = checkpoint.model(plan.dtype, plan.device, **plan.config.machine.model_options)
    max_len = min(_positions(plan.config, plan.samples) + spare, checkpoint.stored.size.max_seq_len)
    return Engine(model, max_len, plan.facts.batch_size, compiled=plan.facts.compiled)


def _positions(config: BenchmarkConfig, samples: list[Sample]) -> int:
    """What the cache has to hold of a text."""
    return max(len(s.tokens) for s in samples) + config.task.limit


def _baseline(config: BenchmarkConfig, checkpoint: Checkpoint, samples: list[Sample]) -> Checkpoint | None:
    if config.baseline is None:
        return None
    baseline = open_checkpoint(config.baseline)
    check_same_reading(checkpoint.tokenizer, baseline.tokenizer, samples, f"baseline={config.baseline}")
    context = baseline.stored.size.max_seq_len
    n_tokens = _positions(config, samples)
    if n_tokens > context:
        raise ConfigError(f"baseline={config.baseline}: its context has {context:,} tokens, {n_tokens:,} are needed")
    return baseline
