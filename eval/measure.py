"""Every setting on every prompt, in turn, so that a machine that changes its speed changes it for all."""

from dataclasses import dataclass, field

from tqdm import tqdm

from eval.engine.decoding import Engine, Policy, SelfSpeculative
from eval.engine.stopping import StopRule
from eval.ideal import PassTimes
from eval.reference import Transformers
from eval.speed import Timed, pass_times, timed
from models.inference import InferenceLlama


@dataclass
class Measured:
    """Index i of every list is the same pass over the same prompt, within seconds."""

    prompt: list[int] = field(default_factory=list)
    """Which prompt."""
    runs: dict[Policy, list[Timed]] = field(default_factory=dict)
    passes: dict[Policy, list[PassTimes]] = field(default_factory=dict)
    transformers: list[tuple[list[int], float]] = field(default_factory=list)
    """Tokens and seconds of transformers' generate, if it was asked for."""
    transformers_version: str | None = None


def measure(
    model: InferenceLlama,
    reference: Transformers | None,
    prompts: list[list[int]],
    policies: list[Policy],
    max_new_tokens: int,
    repeats: int,
) -> Measured:
    """Decode every prompt greedily with every policy, `repeats` times; what runs first changes from prompt to prompt.

    Each setting runs once before, uncounted.
    """
    stop = StopRule(max_new_tokens=max_new_tokens)
    n_prompt = len(prompts[0])
    engine = Engine(model, n_prompt + max_new_tokens)
    # Passes are timed in the middle of the generation, or where the widest verification still fits.
    widest = max(p.num_speculations + 1 if isinstance(p, SelfSpeculative) else 1 for p in policies)
    middle = engine.cache.max_len - max(max_new_tokens // 2, widest)
    out = Measured(runs={p: [] for p in policies}, passes={p: [] for p in policies})
    out.transformers_version = reference.version if reference else None
    for policy in policies:
        timed(engine, prompts[0], policy, stop)
    if reference:
        reference.timed(prompts[0], max_new_tokens)
    schedule = [i for _ in range(repeats) for i in range(len(prompts))]
    for turn, i in enumerate(tqdm(schedule, desc="benchmark", unit="prompt", leave=False, disable=None)):
        out.prompt.append(i)
        for policy in _turned(policies, turn):
            out.runs[policy].append(timed(engine, prompts[i], policy, stop))
        if reference:
            out.transformers.append(reference.timed(prompts[i], max_new_tokens))
        for policy, times in pass_times(engine, prompts[i], policies, middle).items():
            out.passes[policy].append(times)
    return out


def _turned(policies: list[Policy], turn: int) -> list[Policy]:
    """Another first one each time, and backwards every other time."""
    at = (turn * 7) % len(policies)
    order = policies[at:] + policies[:at]
    return order[::-1] if turn % 2 else order
