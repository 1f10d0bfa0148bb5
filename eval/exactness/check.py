"""A whole check of the decoders: what is compared, over all samples."""

from typing import NamedTuple

from conf.progress import progress
from conf.strict import ConfigError
from eval.config import Mode
from eval.engine.agreement import NEAR_TIE
from eval.engine.checkpoint import Checkpoint, open_checkpoint
from eval.engine.decoding import Engine
from eval.engine.policy import MOST_DRAFTS, Drafting, EarlyExit
from eval.engine.threads import Threads, one_token
from eval.exactness.correctness_config import DRAFTS_TO_CHECK, CorrectnessConfig, exits_to_check
from eval.exactness.distribution import Verdict, compare_distributions
from eval.exactness.divergence import Compared, compare_decoders, unexplained_divergences
from eval.exactness.facts import CheckFacts
from eval.machine import device_and_dtype, provenance
from eval.measure.contest import Run, at_a_time, engine_run
from eval.measure.transformers_run import Transformers, version
from eval.policies import policies
from eval.setting import TRANSFORMERS, Setting
from eval.tasks.task import Sample


class Check(NamedTuple):
    """What is compared on what."""

    config: CorrectnessConfig
    checkpoint: Checkpoint
    samples: list[Sample]
    engine: Engine
    """Of one text at a time; one for all, so that what a decoder leaves in the cache cannot help or harm the next
    unseen."""
    speculative: dict[Setting, Drafting]
    runs: dict[Setting, Run]
    """Autoregressive decoding first."""
    facts: CheckFacts


def prepare_check(config: CorrectnessConfig) -> Check:
    """Read what is to be compared, and refuse what cannot be. Raises ConfigError, DataError or FormatError."""
    task, (device, dtype) = config.task, device_and_dtype(config.machine)
    checkpoint = open_checkpoint(config.checkpoint)
    size, drafts = checkpoint.stored.size, config.num_speculations or DRAFTS_TO_CHECK
    exits = config.exit_layers or exits_to_check(size.n_layers)
    modes = [Mode.self_speculative]
    autoregressive, *drafting = policies(
        size.n_layers, exits, drafts, modes=modes, exit_states=config.exit_states, drafted_by=config.policies
    )
    chosen = task.samples(checkpoint)
    new_tokens = max(task.limit, max(*drafts, MOST_DRAFTS) + 2, config.first_tokens)
    longest = max(len(s.tokens) for s in chosen.samples)
    model, room = checkpoint.model(dtype, device, **config.machine.model_options), longest + new_tokens
    engine = Engine(model, min(size.max_seq_len, room))
    together = engine if config.batch_size == 1 else Engine(model, engine.cache.max_len, config.batch_size)
    # Chosen once: with another number sums are rounded otherwise, and decoders of one text are compared here.
    Threads(config.machine.threads, device, one_token(engine.model))
    runs = {
        Setting.of(p, size.n_layers): engine_run(engine if p is autoregressive else together, p)
        for p in (autoregressive, EarlyExit(size.n_layers), *drafting)
    }
    if config.transformers:
        runs[Setting(TRANSFORMERS, size.n_layers)] = Transformers(checkpoint, dtype, device).timed
    facts = CheckFacts(
        checkpoint=config.checkpoint,
        task=task.name,
        n_samples=len(chosen.samples),
        seed=task.seed,
        batch_size=config.batch_size,
        near_tie=NEAR_TIE[dtype] if config.near_tie is None else config.near_tie,
        selection=chosen.selection,
        provenance=provenance(device, dtype, int8=config.machine.int8),
        draft_vocab=config.machine.draft_vocab,
        transformers=version() if config.transformers else None,
    )
    speculative = {Setting.of(p, size.n_layers): p for p in drafting if isinstance(p, Drafting)}
    return Check(config, checkpoint, chosen.samples, engine, speculative, runs, facts)


def greedy(check: Check) -> list[Compared]:
    """Every decoder on every sample."""
    stop, found = check.config.task.stop(check.checkpoint.tokenizer), list[Compared]()
    near_tie, n_together = check.facts.near_tie, at_a_time(check.config.batch_size)
    with progress("correctness", unit="sample", total=len(check.samples)) as bar:
        for start in range(0, len(check.samples), n_together):
            samples = check.samples[start : start + n_together]
            found += compare_decoders(
                check.engine.model, check.checkpoint.tokenizer, check.runs, samples, stop, near_tie
            )
            bar.update(len(samples))
            bar.set_postfix_str(f"{sum(len(unexplained_divergences(c.divergences)) for c in found)} unexplained")
    return found


def sampled(check: Check) -> list[Verdict]:
    """The first tokens that every way to draft draws for the first of the samples.

    Raises ConfigError when they always draw the same.
    """
    config, samples, found = check.config, check.samples[: check.config.sampled_prompts], list[Verdict]()
    stop, n_drawn = config.task.stop(check.checkpoint.tokenizer), len(samples) * (len(check.speculative) + 1)
    with progress("sampled", unit="distribution", total=n_drawn) as bar:
        for sample in samples:
            found += compare_distributions(
                check.engine,
                sample,
                check.speculative,
                stop,
                config.sampling,
                n=config.draws,
                first_tokens=config.first_tokens,
                done=bar.update,
            )
    if blind := next((test for test in found if test.cells < 2), None):
        raise ConfigError(
            f"sampled=true: all draws for sample {blind.sample} fall into one cell, which tests nothing; give another"
            " sampling.temperature or sampling.top_k, or more draws"
        )
    return found
